"""CloudEvents 1.0 in their Kafka binding, binary and structured.

Their data is an event in plain JSON, or the content itself. What the data does not say, the attributes do:
`subject` is the content id, `id` the event id, `time` the time, `source` the source. See "Kafka Protocol
Binding for CloudEvents", sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from schemas.base64_text import NotBase64, bytes_from_base64
from schemas.errors import BadEvent
from schemas.events import Event, ImageContent, TextContent, UploadEvent
from schemas.json_format import event_from_json, parse_json

STRUCTURED_TYPE = b"application/cloudevents+json"
BATCHED_TYPE = b"application/cloudevents-batch"
_ATTRIBUTE_PREFIX = "ce_"
_VERSION_HEADER = "ce_specversion"
_VERSIONS = ("1.0",)
_FIELD_OF_ATTRIBUTE = {"id": "event_id", "source": "source", "subject": "content_id", "time": "occurred_at"}

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class _CloudEvent:
    """The attributes, the media type of the data, and the data: bytes, or a value that JSON had inside."""

    attributes: Mapping[str, Any]
    data_type: str
    data: Any


def is_cloud_event(content_type: bytes, headers: Headers) -> bool:
    """Whether the headers say that the record is a CloudEvent. `content_type` has no parameters."""
    return content_type.startswith((STRUCTURED_TYPE, BATCHED_TYPE)) or _is_binary(headers)


def looks_structured(document: object) -> bool:
    """Whether JSON that is not an event of ours is a CloudEvent without its content-type header."""
    return isinstance(document, dict) and {"specversion", "id", "source", "type"} <= document.keys()


def read_cloud_event(value: bytes, content_type: bytes, headers: Headers, *, timestamp_ms: int) -> Event:
    """Decode one CloudEvent. Does not validate the event. Raises `BadEvent`."""
    if content_type.startswith(BATCHED_TYPE):
        raise BadEvent("undecodable", "a batch of CloudEvents: publish one event in a record")
    if content_type.startswith(STRUCTURED_TYPE):
        return read_structured(parse_json(value), timestamp_ms=timestamp_ms)
    return _read(_binary(value, content_type, headers), timestamp_ms)


def read_structured(document: object, *, timestamp_ms: int) -> Event:
    """Read a structured CloudEvent from a parsed JSON document. Raises `BadEvent`."""
    return _read(_structured(document), timestamp_ms)


def _read(event: _CloudEvent, timestamp_ms: int) -> Event:
    version = event.attributes.get("specversion")
    if version not in _VERSIONS:
        raise BadEvent("undecodable", "a CloudEvent whose specversion is not 1.0")
    return _upload_event(event, timestamp_ms)


def _is_binary(headers: Headers) -> bool:
    return any(name.lower() == _VERSION_HEADER for name, _ in headers)


def _structured(document: object) -> _CloudEvent:
    if not isinstance(document, dict):
        raise BadEvent("undecodable", "a CloudEvent that is not a JSON object")
    attributes = {k: v for k, v in document.items() if k not in ("data", "data_base64")}
    data = document.get("data")
    if "data_base64" in document:
        data = _from_base64(document["data_base64"])
    data_type = attributes.get("datacontenttype") or "application/json"
    return _CloudEvent(attributes, _media_type(str(data_type)), data)


def _binary(value: bytes, content_type: bytes, headers: Headers) -> _CloudEvent:
    attributes = {
        name.lower().removeprefix(_ATTRIBUTE_PREFIX): (text or b"").decode("utf-8", "replace")
        for name, text in headers
        if name.lower().startswith(_ATTRIBUTE_PREFIX)
    }
    data_type = content_type.decode("ascii", "replace") or "application/json"
    return _CloudEvent(attributes, _media_type(data_type), value)


def _upload_event(event: _CloudEvent, timestamp_ms: int) -> Event:
    content = _content(event)
    document = {"content": {"text": ""}} if content is not None else _document(event)
    for attribute, field in _FIELD_OF_ATTRIBUTE.items():
        if event.attributes.get(attribute) and document.get(field) in (None, ""):
            document[field] = event.attributes[attribute]
    upload = event_from_json(document, timestamp_ms=timestamp_ms)
    return (
        upload if content is None or not isinstance(upload, UploadEvent) else replace(upload, content=content)
    )


def _content(event: _CloudEvent) -> TextContent | ImageContent | None:
    """Return the content if the data is the content itself; None if the data is an event."""
    if event.data_type.startswith("image/") or event.data_type == "application/octet-stream":
        if not isinstance(event.data, bytes):
            raise BadEvent("invalid_field", "data: a picture in JSON needs data_base64")
        return ImageContent(event.data)
    if not event.data_type.startswith("text/"):
        return None
    if isinstance(event.data, str):
        return TextContent(event.data)
    if not isinstance(event.data, bytes):
        raise BadEvent("invalid_field", "data: not a text, but datacontenttype says so")
    try:
        return TextContent(event.data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadEvent("not_unicode", "the CloudEvent's text is not UTF-8") from None


def _document(event: _CloudEvent) -> dict[str, Any]:
    data = parse_json(event.data) if isinstance(event.data, bytes) and event.data else event.data
    if not data:
        return {}
    if not isinstance(data, dict):
        raise BadEvent("invalid_field", "data: not an object, and datacontenttype is neither text nor image")
    return dict(data)


def _from_base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise BadEvent("invalid_field", "data_base64: not a string")
    try:
        return bytes_from_base64(text)
    except NotBase64 as error:
        raise BadEvent("invalid_field", f"data_base64: {error}") from None


def _media_type(text: str) -> str:
    return text.split(";")[0].strip().lower()
