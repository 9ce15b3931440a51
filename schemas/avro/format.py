"""Avro single-object encoding: 0xC3 0x01, the schema's fingerprint, the datum.

See "Single-object encoding" and "Schema Fingerprints" in Avro's specification. No other module imports
fastavro.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any

import fastavro
from fastavro.read import SchemaResolutionError
from fastavro.schema import SchemaParseException, fingerprint, to_parsing_canonical_form

from schemas.avro.indices import Walk, index_check
from schemas.avro.logical import ToMilliseconds, find_refusal, find_time_unit
from schemas.avro.references import with_references
from schemas.clock_time import ms_from_time, time_from_ms
from schemas.errors import BadEvent, UnknownSchema
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
from schemas.validation import refuse_beside_patch

MARKER = b"\xc3\x01"
FINGERPRINT_BYTES = 8
_HEADER_BYTES = len(MARKER) + FINGERPRINT_BYTES

FINGERPRINT_ALIASES = {
    bytes.fromhex("8cfe07b2e96c4911"): bytes.fromhex("123f76d973687910"),  # Go: hamba/avro
    bytes.fromhex("a6ee48c11eab6509"): bytes.fromhex("123f76d973687910"),  # Rust: apache-avro
}
"""Fingerprints that other libraries computed for one of our schemas, and the right one.

The schema was first handed out with a logical type for `occurred_at`. Avro's canonical form has no logical
types, but hamba/avro keeps `{"type":"long","logicalType":"timestamp-millis"}` and apache-avro
`{"type":"long"}` where it should be `"long"`. The data are the same. The schema has no logical type any
more, so that all libraries agree.
"""

# Everything that fastavro raises on bytes that are not a datum. MemoryError is left out on purpose: no
# length in the bytes makes fastavro allocate memory, so the machine is at fault and not the record.
_DATUM_ERRORS = (EOFError, IndexError, ValueError, OverflowError, TypeError, KeyError, RecursionError)

# Everything that parsing raises on JSON that is no schema.
_SCHEMA_ERRORS = (SchemaParseException, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """A schema as fastavro has parsed it, and its CRC-64-AVRO fingerprint in wire order (little-endian)."""

    fingerprint: bytes
    parsed: Any


def parse_avro_schema(text: str, references: Sequence[str] = ()) -> AvroSchema:
    """Parse the text of an .avsc file, and of the files whose types it names. Raises ValueError."""
    return _parse(_loaded(text, references))


def _loaded(text: str, references: Sequence[str]) -> Any:
    try:
        return with_references(json.loads(text), [json.loads(one) for one in references])
    except _SCHEMA_ERRORS as error:
        raise ValueError(f"not an Avro schema: {error}") from error


def _parse(document: Any) -> AvroSchema:
    try:
        parsed = fastavro.parse_schema(_without_logical_types(document))
        crc = fingerprint(to_parsing_canonical_form(parsed), "CRC-64-AVRO")
        return AvroSchema(bytes.fromhex(crc), parsed)
    except _SCHEMA_ERRORS as error:
        raise ValueError(f"not an Avro schema: {error}") from error


def _without_logical_types(schema: Any) -> Any:
    """Remove the logical types, so that fastavro reads times as plain longs.

    Otherwise fastavro itself raises on a long that is not a datetime, and this package could not name the
    field. The fingerprint stays the same, because the canonical form has no logical types.
    """
    if isinstance(schema, dict):
        return {k: _without_logical_types(v) for k, v in schema.items() if k != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(item) for item in schema]
    return schema


@dataclass(frozen=True, slots=True)
class ForeignSchema:
    """A schema that another than this package has made, and the check of its data.

    `to_milliseconds` turns `occurred_at` into milliseconds. `refusal` says why no event can be read.
    """

    schema: AvroSchema
    check: Walk
    to_milliseconds: ToMilliseconds
    refusal: str | None


def parse_foreign_schema(text: str, references: Sequence[str] = ()) -> ForeignSchema:
    """Parse the text of a schema that a producer has made. Raises ValueError."""
    document = _loaded(text, references)
    schema = _parse(document)
    try:
        check = index_check(schema.parsed, is_event=False)
        return ForeignSchema(schema, check, find_time_unit(document), find_refusal(document))
    except _SCHEMA_ERRORS as error:
        raise ValueError(f"not an Avro schema: {error}") from error


@cache
def current_schema() -> AvroSchema:
    """Return the schema that events are written with."""
    return parse_avro_schema(files("schemas").joinpath("upload_event.avsc").read_text("utf-8"))


@cache
def released_schemas() -> tuple[AvroSchema, ...]:
    """Return every schema that events were ever written with, including the current one."""
    history = files("schemas").joinpath("history").iterdir()
    return tuple(parse_avro_schema(f.read_text("utf-8")) for f in history if f.name.endswith(".avsc"))


class AvroReader:
    """Reads events of any of the `written` schemas as events of the `current` schema. Thread-safe."""

    def __init__(self, written: Iterable[AvroSchema], current: AvroSchema) -> None:
        self._written: Mapping[bytes, AvroSchema] = {s.fingerprint: s for s in written}
        self._checks = {s.fingerprint: index_check(s.parsed) for s in self._written.values()}
        self._current = current

    def read(self, value: bytes) -> Event:
        """Decode one event that starts with `MARKER`. Does not validate it.

        Raises `BadEvent` or `UnknownSchema`.
        """
        if len(value) < _HEADER_BYTES:
            raise BadEvent("undecodable", f"single-object encoding of {len(value)} bytes: no fingerprint")
        fingerprint_given = value[len(MARKER) : _HEADER_BYTES]
        written = self._written.get(FINGERPRINT_ALIASES.get(fingerprint_given, fingerprint_given))
        if written is None:
            raise self._unknown(fingerprint_given)
        return _event_from_datum(self._read_datum(value, written, _HEADER_BYTES))

    def read_foreign(self, datum: bytes, written: ForeignSchema) -> Event:
        """Decode one event of any schema that Avro resolves to the event's. Does not validate it.

        Raises `BadEvent`: `incompatible_schema`, with Avro's reason.
        """
        if written.refusal is not None:
            raise BadEvent("incompatible_schema", written.refusal)
        fields: dict[str, Any] = self._foreign_fields(datum, written)
        fields["occurred_at"] = written.to_milliseconds(fields["occurred_at"])
        return _event_from_datum(fields)

    def _foreign_fields(self, datum: bytes, written: ForeignSchema) -> Any:
        if (known := self._written.get(written.schema.fingerprint)) is not None:
            return self._read_datum(datum, known)
        _check_names(_branch(datum, written.schema.parsed), self._current.parsed)
        return _read_datum(datum, written.schema.parsed, self._current.parsed, check=written.check)

    def _read_datum(self, value: bytes, written: AvroSchema, start: int = 0) -> Any:
        reader_schema = None if written.fingerprint == self._current.fingerprint else self._current.parsed
        check = self._checks[written.fingerprint]
        return _read_datum(value, written.parsed, reader_schema, check=check, start=start)

    def _unknown(self, written: bytes) -> UnknownSchema:
        known = ", ".join(sorted(f.hex() for f in self._written))
        return UnknownSchema(
            f"fingerprint {written.hex()}",
            f"this consumer knows {known}; upgrade consumers before producers",
        )


def read_foreign_datum(datum: bytes, written: ForeignSchema) -> Any:
    """Decode a datum of any form. Raises `BadEvent`."""
    return _read_datum(datum, written.schema.parsed, None, check=written.check)


def _read_datum(value: bytes, written: Any, reader_schema: Any | None, *, check: Walk, start: int = 0) -> Any:
    stream = BytesIO(value)
    stream.seek(start)
    try:
        check(value, start)
        datum: Any = fastavro.schemaless_reader(stream, written, reader_schema)
    except UnicodeDecodeError:
        raise BadEvent("not_unicode", "a string of the datum is not UTF-8") from None
    except SchemaResolutionError as error:
        raise BadEvent("incompatible_schema", str(error)) from error
    except _DATUM_ERRORS as error:
        raise BadEvent("undecodable", f"not a datum of its schema ({type(error).__name__})") from error
    if stream.tell() != len(value):
        raise BadEvent("undecodable", f"{len(value) - stream.tell()} bytes follow the datum")
    return datum


def _branch(datum: bytes, written: Any) -> Any:
    """Return the schema of the datum itself: of a union, the branch that the datum's first number names.

    Types of several events in one topic are such a union (Confluent's "multiple event types").
    """
    if not isinstance(written, list):
        return written
    try:
        number: Any = fastavro.schemaless_reader(BytesIO(datum), "long", None)
        return dict(enumerate(written))[number]
    except (EOFError, KeyError):
        raise BadEvent("undecodable", "the datum names no type of the union that its schema is") from None


def _check_names(written: Any, current: Any) -> None:
    """Refuse another record by its name, because fastavro's own message quotes both schemas whole."""
    given = written["name"] if isinstance(written, dict) and written.get("type") == "record" else None
    if given is None:
        raise BadEvent("incompatible_schema", "it is not the schema of a record")
    if given.rpartition(".")[2] != current["name"].rpartition(".")[2]:
        detail = (
            f"its record is {given}, and only a record of the name UploadEvent resolves to {current['name']}"
        )
        raise BadEvent("incompatible_schema", detail)


# A field of an event is the field of the same name in the schema.
_UPLOAD_FIELDS = tuple(one.name for one in dataclasses.fields(UploadEvent))
_DELETE_FIELDS = tuple(one.name for one in dataclasses.fields(DeleteEvent))
_PATCH_FIELDS = tuple(one.name for one in dataclasses.fields(PatchEvent))


def write_avro(event: Event) -> bytes:
    """Encode a valid event with the current schema, in single-object encoding."""
    return MARKER + current_schema().fingerprint + write_datum(event)


def write_string(text: bytes) -> bytes:
    """Encode a text, given in UTF-8, with the schema `"string"`, without a header."""
    stream = BytesIO()
    fastavro.schemaless_writer(stream, "string", text.decode())
    return stream.getvalue()


def write_datum(event: Event) -> bytes:
    """Encode a valid event with the current schema, without a header."""
    stream = BytesIO()
    fastavro.schemaless_writer(stream, current_schema().parsed, _datum_from_event(event))
    return stream.getvalue()


def _datum_from_event(event: Event) -> dict[str, Any]:
    if isinstance(event, DeleteEvent):
        datum = {name: getattr(event, name) for name in _DELETE_FIELDS} | {"operation": "delete"}
    elif isinstance(event, PatchEvent):
        datum = {name: getattr(event, name) for name in _PATCH_FIELDS} | {"operation": "patch"}
        datum["metadata"] = _values_for_avro(event.metadata)
        datum["remove"] = list(event.remove)
    else:
        datum = {name: getattr(event, name) for name in _UPLOAD_FIELDS} | {"operation": "upsert"}
        datum["content"] = _branch_from_content(event.content)
        datum["metadata"] = _values_for_avro(event.metadata)
    datum["occurred_at"] = ms_from_time(event.occurred_at)
    return datum


def _branch_from_content(content: Content) -> tuple[str, dict[str, Any]]:
    if isinstance(content, TextContent):
        return "cliptide.TextContent", {"text": content.text}
    if isinstance(content, ImageContent):
        return "cliptide.ImageContent", {"data": content.data}
    return "cliptide.Reference", {
        "uri": content.uri,
        "sha256": None if content.sha256 is None else bytes.fromhex(content.sha256),
        "size_bytes": content.size_bytes,
        "etag": content.etag,
        "modality": content.modality,
    }


def _values_for_avro(metadata: Mapping[str, MetadataValue]) -> dict[str, Any]:
    """Make lists of the tuples, because in a union fastavro takes a tuple for a branch and its value."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in metadata.items()}


def _event_from_datum(datum: dict[str, Any]) -> Event:
    datum["occurred_at"] = time_from_ms(datum["occurred_at"])
    if datum["operation"] == "delete":
        return DeleteEvent(*[datum[name] for name in _DELETE_FIELDS])
    metadata = datum["metadata"]
    if metadata:
        datum["metadata"] = {k: tuple(v) if isinstance(v, list) else v for k, v in metadata.items()}
    if datum["operation"] == "patch":
        refuse_beside_patch(version=datum["version"], content=datum["content"])
        datum["remove"] = tuple(datum["remove"])
        return PatchEvent(*[datum[name] for name in _PATCH_FIELDS])
    datum["content"] = _content_from_fields(datum["content"])
    datum["title"] = datum["title"] or None
    return UploadEvent(*[datum[name] for name in _UPLOAD_FIELDS])


def _content_from_fields(fields: dict[str, Any] | None) -> Content:
    """Tell the kind of content by the field that only this kind has.

    fastavro can also return the name of the kind, but then decoding takes a third longer.
    """
    if fields is None:
        raise BadEvent("empty_content", "content: missing; an upload needs a text, an image or a reference")
    if "text" in fields:
        return TextContent(fields["text"])
    if "data" in fields:
        return ImageContent(fields["data"])
    digest = fields["sha256"]
    return ContentReference(**{**fields, "sha256": None if digest is None else digest.hex()})
