"""Puts the types that a schema only names into it.

A registry keeps a schema's named types under subjects of their own ("schema references"). Avro itself knows
one document, in which a type is defined where it is first named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_NAMED = ("record", "error", "enum", "fixed")
_HOLDERS = {"array": "items", "map": "values"}


def with_references(schema: Any, references: Sequence[Any]) -> Any:
    """Return the schema with each of the referenced types defined where it is first named."""
    if not references:
        return schema
    waiting = {_full_name(one, ""): one for one in references if isinstance(one, dict)}
    return _inlined(schema, "", waiting)


def _inlined(schema: Any, namespace: str, waiting: dict[str, Any]) -> Any:
    if isinstance(schema, str):
        name = schema if schema in waiting or "." in schema else f"{namespace}.{schema}"
        definition = waiting.pop(name, None)
        return schema if definition is None else _inlined(_absolute(definition), "", waiting)
    if isinstance(schema, list):
        return [_inlined(branch, namespace, waiting) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kind = schema.get("type")
    if kind in _NAMED:
        inner = _full_name(schema, namespace).rpartition(".")[0]
        fields = [{**one, "type": _inlined(one["type"], inner, waiting)} for one in schema.get("fields", ())]
        return {**schema, "fields": fields} if fields else schema
    holder = _HOLDERS.get(str(kind), "type")
    return {**schema, holder: _inlined(schema[holder], namespace, waiting)}


def _full_name(schema: Mapping[str, Any], namespace: str) -> str:
    name = str(schema.get("name", ""))
    if "." in name:
        return name
    space = schema.get("namespace", namespace)
    return f"{space}.{name}" if space else name


def _absolute(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a definition whose namespace does not depend on where it stands."""
    full_name = _full_name(schema, "")
    return {**schema, "name": full_name, "namespace": full_name.rpartition(".")[0]}
