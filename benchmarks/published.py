"""The last published run of each figure, and the table of them in docs/figures.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.meanings import MEANINGS

PUBLISHED = Path(__file__).parent / "FIGURES.json"


def read_published() -> dict[str, dict[str, Any]]:
    return json.loads(PUBLISHED.read_text()) if PUBLISHED.exists() else {}


def keep_published(name: str, entry: dict[str, Any]) -> None:
    published = {**read_published(), name: entry}
    PUBLISHED.write_text(json.dumps(dict(sorted(published.items())), indent=2) + "\n")


def build_table() -> str:
    """Return the figures as a Markdown table that includes missed targets."""
    lines = ["| figure | what it means | measured | target | | date |", "|---|---|---|---|---|---|"]
    for name, entry in sorted(read_published().items()):
        verdict = "holds" if entry["holds"] else "**missed**"
        measured = _as_text(entry["value"])
        cells = (f"`{name}`", MEANINGS[name], measured, entry["target"], verdict, entry["date"])
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_as_text(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
