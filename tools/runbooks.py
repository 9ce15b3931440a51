"""The explanations of the alerts in docs/operations.md, as a dashboard that each alert links to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UID = "cliptide-runbooks"
_PANEL_HEIGHT, _PANEL_WIDTH, _COLUMNS = 7, 12, 2


def build_dashboard() -> str:
    """Return the dashboard as JSON, with a text panel for each alert."""
    panels = [_panel(number, *section) for number, section in enumerate(runbooks())]
    fields: dict[str, Any] = {
        "uid": UID,
        "title": "cliptide runbooks",
        "description": "What each alert means and what to do. Generated from docs/operations.md.",
        "tags": ["cliptide"],
        "schemaVersion": 41,
        "panels": panels,
    }
    return json.dumps(fields, indent=1, ensure_ascii=False)


def runbooks() -> Iterator[tuple[str, str]]:
    """Yield the name of each alert with the text of its section."""
    alerts = (ROOT / "docs" / "operations.md").read_text().partition("\n## Alerts\n")[2]
    alerts = alerts.partition("\n## ")[0]
    for section in alerts.split("\n### ")[1:]:
        name, _, text = section.partition("\n")
        yield name, _without_links(text.strip())


def _without_links(text: str) -> str:
    """Keep the words of a link, because its target is a section of the page and not of the dashboard."""
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


def _panel(number: int, name: str, text: str) -> dict[str, Any]:
    line, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "text",
        "title": name,
        "gridPos": {
            "h": _PANEL_HEIGHT,
            "w": _PANEL_WIDTH,
            "x": column * _PANEL_WIDTH,
            "y": line * _PANEL_HEIGHT,
        },
        "options": {"mode": "markdown", "content": f'<a id="{name.lower()}"></a>\n\n{text}'},
    }
