"""Encodes events as Kafka records and decodes them again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from schemas.avro.format import (
    MARKER,
    AvroReader,
    AvroSchema,
    current_schema,
    released_schemas,
    write_avro,
    write_datum,
)
from schemas.clock_time import time_from_record_timestamp
from schemas.cloud_events import (
    Headers,
    is_cloud_event,
    looks_structured,
    read_cloud_event,
    read_structured,
)
from schemas.errors import BadEvent
from schemas.events import DeleteEvent, Event
from schemas.framing import (
    KEY_HEADER,
    VALUE_HEADER,
    Framed,
    SchemaKey,
    describe_schema_key,
    find_framing,
    prefix_of,
)
from schemas.json_format import event_from_json, parse_json, write_json
from schemas.mapping.recognition import recognise
from schemas.mapping.rules import EventMapping, Mapped
from schemas.registered import RegisteredReader, SchemaRegistry
from schemas.validation import validate_event

CONTENT_TYPE_HEADER = "content-type"
JSON_CONTENT_TYPE = "application/json"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class EncodedEvent:
    """The parts of a Kafka record. The key is the content id in UTF-8."""

    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes | None], ...] = ()


def encode_event(event: Event) -> EncodedEvent:
    """Encode in Avro single-object encoding, the default. Raises `BadEvent` if the event breaks a rule."""
    validate_event(event)
    return EncodedEvent(event.content_id.encode(), write_avro(event))


def encode_event_json(event: Event) -> EncodedEvent:
    """Encode as plain JSON. Raises `BadEvent` if the event breaks a rule."""
    validate_event(event)
    headers = ((CONTENT_TYPE_HEADER, JSON_CONTENT_TYPE.encode()),)
    return EncodedEvent(event.content_id.encode(), write_json(event), headers)


def encode_event_framed(event: Event, schema: SchemaKey) -> EncodedEvent:
    """Encode in Avro, framed as a registry's serializer does it: a number as prefix, a GUID in a header.

    `schema` is the registry's key of the current schema. Raises `BadEvent` if the event breaks a rule.
    """
    validate_event(event)
    key, datum = event.content_id.encode(), write_datum(event)
    if isinstance(schema, int):
        return EncodedEvent(key, prefix_of(schema) + datum)
    return EncodedEvent(key, datum, ((VALUE_HEADER, prefix_of(schema)),))


class EventDecoder:
    """Decodes the records of all producers, whatever release they were built with. Thread-safe."""

    def __init__(
        self,
        released: Iterable[AvroSchema] | None = None,
        current: AvroSchema | None = None,
        *,
        mapping: EventMapping | None = None,
        registry: SchemaRegistry | None = None,
        on_passed_over: Callable[[str], None] | None = None,
    ) -> None:
        """Without arguments, know the schemas that ship with the package.

        `mapping` is asked first; what none of its rules applies to is read as without it. Without a
        `registry`, a record with the framing of one is a bad event. `on_passed_over` is told the name of the
        rule by which the mapping passes over a record; threads call it at the same time.
        """
        self._avro = AvroReader(
            released_schemas() if released is None else released, current or current_schema()
        )
        self._mapping = mapping
        self._on_passed_over = on_passed_over or (lambda rule: None)
        self._registered = None if registry is None else RegisteredReader(registry, self._avro)

    def decode(
        self,
        *,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        timestamp_ms: int,
    ) -> Event | None:
        """Return the valid event that the record holds, or None if a mapping passes over the record.

        Raises `BadEvent` if this record can never become an event, and `UnknownSchema` if a consumer with
        other schemas might decode it. With a registry it raises `SchemaNotAtHand` if the record needs a
        schema that must be fetched first. It raises nothing else, whatever the bytes are.
        """
        framed: Framed | None = None
        if self._registered is not None:
            key = _without_framing(self._registered, key, headers)
            if value is not None:
                framed, value = _without_json_framing(self._registered, value, headers)
        if self._mapping is not None:
            mapped = self._map_record(framed, key, value, headers, timestamp_ms)
            if mapped is not None:
                if mapped.event is None:
                    self._on_passed_over(mapped.rule)
                return mapped.event
        if not key:
            raise BadEvent("missing_key", "the record has no key; it must be the content id")
        if value is None:
            event: Event = _delete_event_from_key(key, timestamp_ms)
        elif framed is not None and self._registered is not None:
            event = self._registered.read_event(framed)
        else:
            event = self._decode_value(value, headers, timestamp_ms)
        validate_event(event)
        if event.content_id.encode() != key:
            raise BadEvent("key_mismatch", "the record's key is not the event's content id")
        return event

    def _decode_value(self, value: bytes, headers: Headers, timestamp_ms: int) -> Event:
        # The first bytes decide, because JSON in UTF-8 starts with neither marker. If they do not tell, the
        # content-type header decides. The headers of a CloudEvent say more than the first bytes.
        content_type = _content_type(headers)
        if value.startswith(MARKER):
            return self._avro.read(value)
        if is_cloud_event(content_type, headers):
            return read_cloud_event(value, content_type, headers, timestamp_ms=timestamp_ms)
        if _starts_like_json(value) or content_type == JSON_CONTENT_TYPE.encode():
            return _read_plain_json(value, timestamp_ms)
        if self._registered is None and (framed := find_framing(value, headers, VALUE_HEADER)) is not None:
            raise _framing_refused(framed)
        raise _unknown_format(value)

    def _map_record(
        self,
        framed: Framed | None,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        timestamp_ms: int,
    ) -> Mapped | None:
        assert self._mapping is not None
        if value is None:
            return Mapped("tombstones", None) if self._mapping.tombstones == "ignore" else None
        if framed is not None and self._registered is not None:
            value = self._registered.read_document(framed)
        mapped = self._mapping.read(key=key, value=value, headers=headers, timestamp_ms=timestamp_ms)
        if mapped is not None and mapped.event is not None:
            validate_event(mapped.event)
        return mapped


def _without_json_framing(
    reader: RegisteredReader, value: bytes, headers: Headers
) -> tuple[Framed | None, bytes]:
    """Return the framing if an Avro datum stands in it, and the value, without the framing of JSON."""
    framed = find_framing(value, headers, VALUE_HEADER)
    if framed is not None and reader.is_json(framed):
        return None, framed.datum
    return framed, value


def _without_framing(reader: RegisteredReader, key: bytes | None, headers: Headers) -> bytes | None:
    """Return the key that a registry's serializer was given."""
    framed = None if key is None else find_framing(key, headers, KEY_HEADER)
    return key if framed is None else reader.read_key(framed)


def _read_plain_json(value: bytes, timestamp_ms: int) -> Event:
    """Read plain JSON. If it is not an event, look what it may be. It may be large, so it is parsed once."""
    document = parse_json(value)
    try:
        return event_from_json(document, timestamp_ms=timestamp_ms)
    except BadEvent as error:
        if looks_structured(document):
            return read_structured(document, timestamp_ms=timestamp_ms)
        advice = recognise(document)
        if advice is None:
            raise
        raise BadEvent(error.reason, f"{error.detail}; {advice}") from error


def _delete_event_from_key(key: bytes, timestamp_ms: int) -> DeleteEvent:
    try:
        content_id = key.decode()
    except UnicodeDecodeError:
        raise BadEvent("not_unicode", "the key is not UTF-8") from None
    return DeleteEvent(
        event_id="", content_id=content_id, source="", occurred_at=time_from_record_timestamp(timestamp_ms)
    )


def _starts_like_json(value: bytes) -> bool:
    return value.removeprefix(_BYTE_ORDER_MARK).lstrip(b" \t\r\n").startswith(b"{")


def _content_type(headers: Headers) -> bytes:
    """Return the media type of the content-type header, in lower case and without its parameters."""
    for name, value in headers:
        if name.lower() == CONTENT_TYPE_HEADER and value is not None:
            return value.split(b";")[0].strip().lower()
    return b""


def _framing_refused(framed: Framed) -> BadEvent:
    return BadEvent(
        "unknown_schema",
        f"{describe_schema_key(framed.schema)} of the Confluent wire format, which needs a schema registry: "
        "set CLIPTIDE_SCHEMA_REGISTRY__URL, or publish Avro single-object encoding or plain JSON",
    )


_FOREIGN_FORMATS = (
    (b"[", "this looks like a JSON array: publish one object in a record"),
    (b"Obj\x01", "this is an Avro container file: publish Avro single-object encoding"),
    (b"\x1f\x8b", "this is gzip: leave compressing to the producer's compression.type"),
    (b"\xff\xfe", "this looks like UTF-16: publish JSON in UTF-8"),
    (b"\xfe\xff", "this looks like UTF-16: publish JSON in UTF-8"),
)
"""What a value may be that is none of our formats, by its first bytes."""


def _unknown_format(value: bytes) -> BadEvent:
    if not value:
        return BadEvent("undecodable", "the value is empty; to delete a content, send a null value")
    known = "".join(f"; {what}" for start, what in _FOREIGN_FORMATS if value.startswith(start))
    return BadEvent("undecodable", f"no known wire format starts with the bytes {value[:4].hex(' ')}{known}")
