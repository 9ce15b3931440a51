"""Plain JSON events, which any language can write without a library.

A field that has a default in the Avro schema may be left out or null. So may `occurred_at`: the record's
timestamp is used instead. Unknown fields are ignored, so that older consumers can read newer events.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

from schemas.base64_text import NotBase64, bytes_from_base64
from schemas.clock_time import (
    rfc_3339_from_time,
    time_from_ms,
    time_from_record_timestamp,
    time_from_rfc_3339,
)
from schemas.errors import BadEvent
from schemas.events import (
    Content,
    ContentReference,
    DeleteEvent,
    Event,
    ImageContent,
    MetadataValue,
    PatchEvent,
    TextContent,
    UploadEvent,
)
from schemas.json_size import is_small_json
from schemas.validation import MAX_METADATA_ENTRIES, refuse_beside_patch

MAX_STRINGS = 100_000
MAX_CONTAINERS = 100_000  # lists and objects
MAX_COMMAS = 1_000_000  # a number of four bytes takes 40 in a list


def parse_json(value: bytes) -> object:
    """Parse JSON in UTF-8. Raises `BadEvent`.

    Millions of names, lists or numbers would take ten to thirty times their bytes in memory, so they are
    counted before.
    """
    if value.count(b'"') - value.count(b'\\"') > 2 * MAX_STRINGS:
        raise BadEvent("undecodable", f"JSON of more than {MAX_STRINGS} strings")
    if not is_small_json(value, max_containers=MAX_CONTAINERS, max_commas=MAX_COMMAS):
        raise BadEvent(
            "undecodable", f"JSON of more than {MAX_CONTAINERS} lists and objects, or too many numbers"
        )
    try:
        return json.loads(value.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadEvent("not_unicode", "the JSON is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadEvent("undecodable", f"not JSON ({type(error).__name__})") from None


def event_from_json(document: object, *, timestamp_ms: int) -> Event:
    """Read the event from a parsed JSON document. Raises `BadEvent`. Does not validate the event.

    `timestamp_ms` is used if the document has no `occurred_at`.
    """
    fields = _Fields(document, "event")
    operation = fields.choice("operation", ("upsert", "delete", "patch"), default="upsert")
    common: dict[str, Any] = {
        "event_id": fields.text("event_id", default=""),
        "content_id": fields.text("content_id"),
        "source": fields.text("source", default=""),
        "version": fields.optional_integer("version"),
        "occurred_at": _occurred_at(fields, timestamp_ms),
    }
    if operation == "delete":
        return DeleteEvent(**common)
    link, metadata = fields.optional_text("link"), _metadata(fields.get("metadata"))
    if operation == "patch":
        refuse_beside_patch(version=common.pop("version"), content=fields.get("content"))
        title, remove = fields.optional_text("title"), _removed(fields.get("remove"))
        return PatchEvent(**common, link=link, metadata=metadata, title=title, remove=remove)
    return UploadEvent(
        **common,
        content=_content(fields.get("content")),
        owner_id=fields.optional_text("owner_id"),
        link=link,
        metadata=metadata,
        title=fields.optional_text("title") or None,
    )


def json_from_event(event: Event) -> dict[str, Any]:
    """Return the JSON document of an event, without the fields that hold their default."""
    document: dict[str, Any] = {
        "content_id": event.content_id,
        "occurred_at": rfc_3339_from_time(event.occurred_at),
        "operation": "delete",
        "version": event.version,
        "event_id": event.event_id or None,
        "source": event.source or None,
    }
    if isinstance(event, PatchEvent):
        document |= {
            "operation": "patch",
            "link": event.link,
            "metadata": dict(event.metadata) or None,
            "title": event.title,
            "remove": list(event.remove) or None,
        }
    elif isinstance(event, UploadEvent):
        document |= {
            "operation": "upsert",
            "content": _json_from_content(event.content),
            "owner_id": event.owner_id,
            "link": event.link,
            "metadata": dict(event.metadata) or None,
            "title": event.title,
        }
    return {name: value for name, value in document.items() if value is not None}


def write_json(event: Event) -> bytes:
    """Encode a valid event."""
    return json.dumps(
        json_from_event(event), ensure_ascii=False, allow_nan=False, separators=(",", ":")
    ).encode()


class _Fields:
    """Reads the fields of a JSON object by type. Errors name the field."""

    def __init__(self, document: object, name: str) -> None:
        if not isinstance(document, dict):
            raise BadEvent("invalid_field", f"{name}: not an object")
        self._document: Mapping[str, object] = document
        self._prefix = "" if name == "event" else f"{name}."

    def get(self, name: str) -> object:
        return self._document.get(name)

    def names(self) -> set[str]:
        """Return the names of the fields that are present and not null."""
        return {name for name, value in self._document.items() if value is not None}

    def text(self, name: str, *, default: str | None = None) -> str:
        value = self.optional_text(name)
        if value is None:
            value = default
        if value is None:
            raise BadEvent("invalid_field", f"{self._prefix}{name}: missing")
        return value

    def optional_text(self, name: str) -> str | None:
        value = self._document.get(name)
        if value is None or isinstance(value, str):
            return value
        raise BadEvent("invalid_field", f"{self._prefix}{name}: not a string")

    def optional_integer(self, name: str) -> int | None:
        value = self._document.get(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise BadEvent("invalid_field", f"{self._prefix}{name}: not an integer")

    def integer(self, name: str) -> int:
        value = self.optional_integer(name)
        if value is None:
            raise BadEvent("invalid_field", f"{self._prefix}{name}: missing")
        return value

    def choice(self, name: str, choices: tuple[str, ...], *, default: str | None = None) -> str:
        value = self.text(name, default=default)
        if value not in choices:
            raise BadEvent("invalid_field", f"{self._prefix}{name}: not one of {', '.join(choices)}")
        return value


def _occurred_at(fields: _Fields, timestamp_ms: int) -> datetime:
    value = fields.get("occurred_at")
    if value is None:
        return time_from_record_timestamp(timestamp_ms)
    if isinstance(value, str):
        return time_from_rfc_3339(value)
    return time_from_ms(fields.integer("occurred_at"))


def _content(value: object) -> Content:
    if value is None:
        raise BadEvent("empty_content", "content: missing; an upload needs a text, an image or a reference")
    fields = _Fields(value, "content")
    given = fields.names() & {"text", "image", "reference"}
    if len(given) != 1:
        raise BadEvent("invalid_field", f"content: needs one of text, image and reference, has {len(given)}")
    if given == {"text"}:
        return TextContent(fields.text("text"))
    if given == {"image"}:
        return ImageContent(_image_from_base64(fields.text("image")))
    return _reference(_Fields(fields.get("reference"), "content.reference"))


def _reference(fields: _Fields) -> ContentReference:
    sha256 = fields.optional_text("sha256")
    return ContentReference(
        uri=fields.text("uri"),
        sha256=None if sha256 is None else sha256.lower(),
        size_bytes=fields.optional_integer("size_bytes"),
        modality="text" if fields.choice("modality", ("text", "image")) == "text" else "image",
        etag=fields.optional_text("etag"),
    )


def _removed(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BadEvent("invalid_field", "remove: not a list of texts")
    return tuple(value)


def _image_from_base64(text: str) -> bytes:
    try:
        return bytes_from_base64(text)
    except NotBase64 as error:
        raise BadEvent("invalid_field", f"content.image: {error}") from None


def _metadata(value: object) -> dict[str, MetadataValue]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadEvent("invalid_field", "metadata: not an object")
    given = ((key, item) for key, item in value.items() if item is not None)
    # One more than is allowed suffices to be refused, however many there are.
    return {key: _metadata_value(item) for key, item in islice(given, MAX_METADATA_ENTRIES + 1)}


def _metadata_value(value: object) -> MetadataValue:
    if isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, list):
        return _texts(value)
    if not isinstance(value, int):
        raise BadEvent("invalid_field", "metadata: not a text, a number, a boolean or a list of texts")
    return double_from_integer(value)


def _texts(values: list[object]) -> tuple[str, ...]:
    texts = tuple(value for value in values if isinstance(value, str))
    if len(texts) < len(values):
        raise BadEvent("invalid_field", "metadata: a list may hold texts only")
    return texts


def double_from_integer(value: int) -> float:
    """Convert an integer to a double, or refuse it if a double cannot hold it: it is probably an id."""
    try:
        double = float(value)
    except OverflowError:
        double = float("inf")
    if double != value:
        raise BadEvent("invalid_field", "metadata: a double cannot hold this integer; send it as a text")
    return double


def _json_from_content(content: Content) -> dict[str, Any]:
    if isinstance(content, TextContent):
        return {"text": content.text}
    if isinstance(content, ImageContent):
        return {"image": base64.b64encode(content.data).decode("ascii")}
    reference = dataclasses.asdict(content)
    return {"reference": {name: value for name, value in reference.items() if value is not None}}
