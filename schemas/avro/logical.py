"""What a producer's logical types say of the values of an event.

fastavro is not asked to apply them (see `_without_logical_types`). But a time in microseconds must not be
taken for milliseconds, and a decimal's bytes must not become a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

ToMilliseconds: TypeAlias = Callable[[int], int]

_MS_PER_DAY = 86_400_000
_TO_MILLISECONDS: Mapping[str, ToMilliseconds] = MappingProxyType(
    {
        "timestamp-micros": lambda value: value // 1_000,
        "local-timestamp-micros": lambda value: value // 1_000,
        "timestamp-nanos": lambda value: value // 1_000_000,
        "local-timestamp-nanos": lambda value: value // 1_000_000,
        "date": lambda value: value * _MS_PER_DAY,
    }
)


def find_time_unit(document: Any) -> ToMilliseconds:
    """Return what makes milliseconds of `occurred_at`, as the schema writes it. They are the default."""
    names = _logical_types(_field(document, "occurred_at"))
    return next((_TO_MILLISECONDS[name] for name in names if name in _TO_MILLISECONDS), lambda value: value)


def find_refusal(document: Any) -> str | None:
    """Say why no event may be read by the schema: a decimal's bytes would be read as a text."""
    if "decimal" not in _logical_types(_field(document, "metadata")):
        return None
    return "metadata holds decimals, which Avro writes as bytes: make them double or string"


def _field(document: Any, name: str) -> Any:
    """Return the type of a field of the event's record, which may be one branch of a union."""
    branches = document if isinstance(document, list) else [document]
    for record in branches:
        fields = record.get("fields") if isinstance(record, dict) else None
        for field in fields if isinstance(fields, list) else ():
            if isinstance(field, dict) and field.get("name") == name:
                return field.get("type")
    return None


def _logical_types(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _logical_types(branch)
    elif isinstance(schema, dict):
        if isinstance(schema.get("logicalType"), str):
            yield schema["logicalType"]
        for inner in ("type", "items", "values"):
            yield from _logical_types(schema.get(inner))
