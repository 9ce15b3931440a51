"""Tells whose record it is that is not an event, so that the message can name the mapping for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

_Shape: TypeAlias = Callable[[Mapping[str, Any]], bool]


def recognise(document: object) -> str | None:
    """Return a sentence with the mapping to set, or None for JSON of no known shape."""
    if not isinstance(document, dict):
        return None
    for what, preset, has_shape in _SHAPES:
        if has_shape(document):
            return f"this is {what}: set CLIPTIDE_MAPPING={preset}, or a mapping of your own"
    return None


def _is_row_change(document: Mapping[str, Any]) -> bool:
    payload = _payload(document)
    return "op" in payload and ("after" in payload or "before" in payload)


def _is_schema_change(document: Mapping[str, Any]) -> bool:
    payload = _payload(document)
    return "ddl" in payload and "databaseName" in payload


def _is_transaction(document: Mapping[str, Any]) -> bool:
    payload = _payload(document)
    return payload.get("status") in ("BEGIN", "END") and payload.keys() >= {"id", "data_collections"}


def _is_heartbeat(document: Mapping[str, Any]) -> bool:
    return _payload(document).keys() == {"ts_ms"}


def _payload(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what Connect's JSON converter wraps if it writes schemas; else the document itself."""
    payload = document.get("payload", document)
    return payload if isinstance(payload, dict) else {}


def _is_notification(document: Mapping[str, Any]) -> bool:
    records = document.get("Records")
    first = records[0] if isinstance(records, list) and records else None
    return (isinstance(first, dict) and "s3" in first) or document.get("kind") == "storage#object"


def _is_connect_json(document: Mapping[str, Any]) -> bool:
    return document.keys() == {"schema", "payload"} and isinstance(document["payload"], dict)


_SHAPES: tuple[tuple[str, str, _Shape], ...] = (
    ("a row change of Debezium", "debezium", _is_row_change),
    ("a change of the schema by Debezium, and no content", "debezium", _is_schema_change),
    ("the begin or end of a transaction by Debezium, and no content", "debezium", _is_transaction),
    ("a heartbeat of Debezium, and no content", "debezium", _is_heartbeat),
    ("a notification of a bucket", "s3-notification", _is_notification),
    ("a record of Kafka Connect's JSON converter", "connect-json", _is_connect_json),
)
