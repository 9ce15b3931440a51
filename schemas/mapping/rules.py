"""Applies the rules of a mapping to a record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from schemas.errors import BadEvent
from schemas.events import Event, ImageContent, TextContent, UploadEvent
from schemas.json_format import event_from_json, parse_json
from schemas.mapping.model import Condition, ContentSource, MappingFile, MetadataSource, Rule, Taken
from schemas.mapping.values import ABSENT, ForeignRecord, NotThere, check_placeholder, find_value, resolve

FIELDS = (
    "content_id",
    "operation",
    "occurred_at",
    "version",
    "event_id",
    "source",
    "owner_id",
    "link",
    "title",
)
_MOST_SHOWN = 100  # characters of a record's text, in the reason why a rule does not apply
_REFERENCE_FIELDS = ("uri", "modality", "sha256", "size_bytes", "etag")


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a mapping says of a record: an event, or None if the record is to be passed over."""

    rule: str
    event: Event | None


class EventMapping:
    """Makes events of foreign records. Immutable and thread-safe."""

    def __init__(self, file: MappingFile) -> None:
        self._file = file

    @property
    def tombstones(self) -> Literal["delete", "ignore"]:
        """What a record with a null value means."""
        return self._file.tombstones

    def read(
        self,
        *,
        key: bytes | None,
        value: bytes,
        headers: Sequence[tuple[str, bytes | None]],
        timestamp_ms: int,
    ) -> Mapped | None:
        """Return what the first rule that applies says, or None if none applies.

        Raises `BadEvent`: `mapping_failed` if a value that the rule takes is not there.
        """
        record = ForeignRecord(key, value, _json_from(value), headers, self._file.placeholder)
        for rule in self._file.rules:
            inner = _enter(rule, record)
            if inner is not None and _applies(rule, inner):
                if rule.refuse is not None:
                    raise BadEvent("mapping_failed", f"rule {rule.name!r}: {rule.refuse}")
                if rule.take is None:
                    return Mapped(rule.name, None)
                return Mapped(rule.name, _event(rule.name, rule.take, inner, timestamp_ms))
        return None

    def explain(
        self, *, key: bytes | None, value: bytes, headers: Sequence[tuple[str, bytes | None]]
    ) -> list[tuple[str, str]]:
        """Say of each rule why it does not apply, for people who write mappings. May quote the record."""
        record = ForeignRecord(key, value, _json_from(value), headers, self._file.placeholder)
        return [(rule.name, _why_not(rule, record)) for rule in self._file.rules]


def _applies(rule: Rule, record: ForeignRecord) -> bool:
    """Whether all conditions hold. A value that is not JSON is passed over only if a header says so.

    Otherwise a rule that ignores everything else would hide broken records, and events in Avro.
    """
    if rule.ignore and record.document is ABSENT and not any(one.header for one in rule.when):
        return False
    return all(is_met(condition, record) for condition in rule.when)


def is_met(condition: Condition, record: ForeignRecord) -> bool:
    found = _subject_of(condition, record)
    if condition.exists is not None:
        return (found is not ABSENT and found is not None) == condition.exists
    if found is ABSENT:
        return False
    if condition.equals is not None:
        return _same(found, condition.equals)
    if condition.any_of is not None:
        return any(_same(found, wanted) for wanted in condition.any_of)
    if condition.none_of is not None:
        return found is not None and not any(_same(found, wanted) for wanted in condition.none_of)
    if not isinstance(found, str):
        return False
    if condition.starts_with is not None:
        return found.startswith(tuple(condition.starts_with))
    return found.endswith(tuple(condition.ends_with or ()))


def _same(found: object, wanted: object) -> bool:
    """Compare with types, so that true is not 1; but 1 and 1.0 are one number."""
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def _subject_of(condition: Condition, record: ForeignRecord) -> Any:
    if condition.pointer is None:
        return record.header(condition.header or "")
    return resolve(record.document, condition.pointer)


def _enter(rule: Rule, record: ForeignRecord) -> ForeignRecord | None:
    """The record as seen from the first object of `at` that is there."""
    for pointer in rule.at:
        found = resolve(record.document, pointer) if pointer else record.document
        if found is not ABSENT or not pointer:
            return replace(record, document=found)
    return None


def _why_not(rule: Rule, record: ForeignRecord) -> str:
    inner = _enter(rule, record)
    if inner is None:
        return f"there is no {' or '.join(rule.at)}"
    for condition in rule.when:
        if not is_met(condition, inner):
            found = _subject_of(condition, inner)
            return f"{condition.subject} is {_shown(found)}"
    return "applies" if _applies(rule, inner) else "the value is not JSON"


def _shown(found: Any) -> str:
    if isinstance(found, dict | list):
        return "an object" if isinstance(found, dict) else "a list"
    if isinstance(found, str) and len(found) > _MOST_SHOWN:
        return f"{json.dumps(found[:_MOST_SHOWN], ensure_ascii=False)} and more"
    return "not there" if found is ABSENT else json.dumps(found, ensure_ascii=False)


def _event(rule: str, take: Taken, record: ForeignRecord, timestamp_ms: int) -> Event:
    try:
        document = _document(take, record)
        whole = _whole_value(take.content, record)
    except NotThere as error:
        raise BadEvent("mapping_failed", f"rule {rule!r}: {error}") from error
    if whole is None:
        return event_from_json(document, timestamp_ms=timestamp_ms)
    event = event_from_json({**document, "content": {"text": ""}}, timestamp_ms=timestamp_ms)
    return replace(event, content=whole) if isinstance(event, UploadEvent) else event


def _document(take: Taken, record: ForeignRecord) -> dict[str, Any]:
    """Return the event as a document of plain JSON."""
    document = _base(take, record)
    for name in FIELDS:
        spec = getattr(take, name)
        if spec is not None:
            document[name] = find_value(spec, record, name)
    if take.content is not None and document.get("operation") != "delete":
        document["content"] = _content(take.content, record)
    metadata = _metadata(take, record)
    if metadata:
        document["metadata"] = {**(document.get("metadata") or {}), **metadata}
    return document


def _base(take: Taken, record: ForeignRecord) -> dict[str, Any]:
    if take.event is None:
        return {}
    found = resolve(record.document, take.event)
    if not isinstance(found, dict):
        raise NotThere("event", f"{take.event or 'the value'} is not an object")
    return dict(found)


def _content(content: ContentSource, record: ForeignRecord) -> dict[str, Any] | None:
    if content.text is not None:
        return {"text": find_value(content.text, record, "content.text")}
    if content.image is not None:
        return {"image": find_value(content.image, record, "content.image")}
    if content.reference is None:
        return None
    given = {name: getattr(content.reference, name) for name in _REFERENCE_FIELDS}
    values = {
        name: find_value(spec, record, f"content.reference.{name}")
        for name, spec in given.items()
        if spec is not None
    }
    return {"reference": values}


def _whole_value(content: ContentSource | None, record: ForeignRecord) -> TextContent | ImageContent | None:
    if content is None or content.whole_value is None:
        return None
    if content.whole_value == "image":
        return ImageContent(record.value)
    try:
        return TextContent(record.value.decode())
    except UnicodeDecodeError:
        raise NotThere("content.whole_value", "the value is not UTF-8") from None


def _metadata(take: Taken, record: ForeignRecord) -> dict[str, Any]:
    metadata = {} if take.metadata_from is None else _members(take.metadata_from, record)
    for name, spec in take.metadata.items():
        metadata[name] = find_value(spec, record, f"metadata.{name}")
    return {name: value for name, value in metadata.items() if value is not None}


def _members(source: MetadataSource, record: ForeignRecord) -> dict[str, Any]:
    found = resolve(record.document, source.pointer)
    if not isinstance(found, Mapping):
        raise NotThere("metadata_from", f"{source.pointer} is not an object")
    taken = {name: found[name] for name in found if name not in source.leave_out and _is_plain(found[name])}
    for name, value in taken.items():
        check_placeholder(value, record, f"metadata.{name}", f"{source.pointer}/{name}")
    return taken


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, (str, int, float, bool))


def _json_from(value: bytes) -> Any:
    try:
        return parse_json(value)
    except BadEvent:
        return ABSENT
