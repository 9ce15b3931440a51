"""Reads data that are written with a schema of a registry."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any, Protocol

from schemas.avro.format import AvroReader, ForeignSchema, parse_foreign_schema, read_foreign_datum
from schemas.errors import BadEvent
from schemas.events import Event
from schemas.framing import Framed, SchemaKey, describe_schema_key
from schemas.json_format import parse_json

_MAX_REASON = 300


@dataclass(frozen=True, slots=True)
class RegisteredSchema:
    """A schema as a registry gives it. `kind` is AVRO, JSON or another.

    `references` are the texts of the schemas that it names, each behind those that it names itself.
    """

    kind: str
    text: str
    references: tuple[str, ...] = ()


class SchemaRegistry(Protocol):
    """Where the schemas of a registry are at hand. Does not wait, and asks no network. Thread-safe."""

    def find(self, key: SchemaKey) -> RegisteredSchema | None:
        """Return the schema, or None if the registry has none of this key.

        Raises `SchemaNotAtHand` if the registry has not been asked yet.
        """


class RegisteredReader:
    """Reads framed keys and values. Thread-safe."""

    def __init__(self, registry: SchemaRegistry, avro: AvroReader) -> None:
        self._registry = registry
        self._avro = avro
        self._parsed: dict[SchemaKey, ForeignSchema] = {}

    def is_json(self, framed: Framed) -> bool:
        """Whether the datum is JSON. Raises `BadEvent` for a kind of schema that is neither JSON nor Avro."""
        kind = self._schema(framed.schema).kind
        if kind not in ("AVRO", "JSON"):
            raise BadEvent(
                "incompatible_schema", f"{describe_schema_key(framed.schema)} is of the kind {kind}"
            )
        return kind == "JSON"

    def read_event(self, framed: Framed) -> Event:
        """Read an Avro datum as an event, by Avro's rules of resolution. Does not validate the event."""
        schema = self._avro_schema(framed.schema)
        try:
            return self._avro.read_foreign(framed.datum, schema)
        except BadEvent as error:
            if error.reason != "incompatible_schema":
                raise
            detail = f"{describe_schema_key(framed.schema)}: {error.detail[:_MAX_REASON]}"
            raise BadEvent(error.reason, detail) from error

    def read_document(self, framed: Framed) -> bytes:
        """Return an Avro datum of any form as JSON, with bytes in base64."""
        datum = read_foreign_datum(framed.datum, self._avro_schema(framed.schema))
        return json.dumps(datum, default=_json_from_bytes, ensure_ascii=False).encode()

    def read_key(self, framed: Framed) -> bytes:
        """Return a text as its UTF-8, and a key of any other form as JSON."""
        if self.is_json(framed):
            document: Any = _parsed_key(framed.datum)
        else:
            document = read_foreign_datum(framed.datum, self._avro_schema(framed.schema))
        if isinstance(document, bytes):
            return document
        if isinstance(document, str):
            return document.encode(errors="surrogatepass")
        return json.dumps(document, default=_json_from_bytes, ensure_ascii=False).encode()

    def _schema(self, key: SchemaKey) -> RegisteredSchema:
        schema = self._registry.find(key)
        if schema is None:
            raise BadEvent("unknown_schema", f"the registry has no {describe_schema_key(key)}")
        return schema

    def _avro_schema(self, key: SchemaKey) -> ForeignSchema:
        parsed = self._parsed.get(key)
        if parsed is None:
            schema = self._schema(key)
            try:
                parsed = parse_foreign_schema(schema.text, schema.references)
            except ValueError as error:
                detail = f"{describe_schema_key(key)}: {str(error)[:_MAX_REASON]}"
                raise BadEvent("incompatible_schema", detail) from error
            self._parsed[key] = parsed
        return parsed


def _parsed_key(datum: bytes) -> Any:
    try:
        return parse_json(datum)
    except BadEvent as error:
        raise BadEvent(error.reason, f"the key: {error.detail}") from None


def _json_from_bytes(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(type(value).__name__)
