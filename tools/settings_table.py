"""`python -m tools.settings_table`: the table of settings, from the code that reads them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

import consumer.settings
import query_api.settings
from service.environment import PREFIX


def variables_of(model: type[Any], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield (variable, default, description) of every setting below a section."""
    for name, default, description in _fields_of(model):
        variable = f"{prefix}{name.upper()}"
        if isinstance(default, BaseModel) or dataclasses.is_dataclass(default):
            yield from variables_of(type(default), variable + "__")
        else:
            yield variable, _as_text(default), description


def _fields_of(model: type[Any]) -> Iterator[tuple[str, Any, str]]:
    if dataclasses.is_dataclass(model):
        for field in dataclasses.fields(model):
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            yield field.name, default, field.metadata.get("description", "")
    else:
        for name, info in model.model_fields.items():
            yield name, info.get_default(call_default_factory=True), info.description or ""


def _as_text(default: Any) -> str:
    if default is None or default == "":
        return ""
    if isinstance(default, (frozenset, tuple)):
        return "[]" if not default else str(sorted(default))
    return str(default).lower() if isinstance(default, bool) else str(default)


def cell(text: str) -> str:
    """Return a text as a cell of a table, which a bar would end."""
    return text.replace("|", "\\|")


def build_table() -> str:
    rows: dict[str, dict[tuple[str, str], list[str]]] = {}
    for service, settings in (("consumer", consumer.settings), ("query_api", query_api.settings)):
        for variable, default, description in variables_of(settings.Settings, PREFIX):
            rows.setdefault(variable, {}).setdefault((default, description), []).append(service)
    lines = ["| variable | default | read by | |", "|---|---|---|---|"]
    for variable, variants in rows.items():
        for (default, description), services in variants.items():  # two lines where the services differ
            shown = f"`{default}`" if default else ""
            lines.append(f"| `{variable}` | {shown} | {', '.join(services)} | {cell(description)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(build_table() + "\n")
