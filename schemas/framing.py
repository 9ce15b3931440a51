"""What the serializers of a schema registry write: the schema's key, and the datum that it describes.

The key is a number, which stands before the datum (0x00 and 4 bytes), or a GUID, which stands in a header of
the record (0x01 and 16 bytes) while the datum has no prefix. This is the wire format of Confluent's
serializers: `confluent_kafka.schema_registry.serde.SchemaId`, which also reads a number in the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

from schemas.errors import BadEvent

KEY_HEADER = "__key_schema_id"
VALUE_HEADER = "__value_schema_id"
_ID_MARKER = b"\x00"
_GUID_MARKER = b"\x01"
_ID_BYTES = 5
_GUID_BYTES = 17

SchemaKey: TypeAlias = int | UUID
"""How a registry calls one of its schemas."""

Headers: TypeAlias = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Framed:
    """A datum, and the key of the schema that it is written with."""

    schema: SchemaKey
    datum: bytes


def describe_schema_key(key: SchemaKey) -> str:
    return f"schema id {key}" if isinstance(key, int) else f"schema GUID {key}"


def find_framing(data: bytes, headers: Headers, header: str) -> Framed | None:
    """Return what the header frames, or what the first bytes frame; None if neither is a framing.

    Raises `BadEvent` if the header is there and holds no key.
    """
    for name, given in headers:
        if name == header:
            found = _split(given or b"")
            if found is None or found.datum:
                raise BadEvent("undecodable", f"the header {header} holds no schema id")
            return Framed(found.schema, data)
    framed = _split(data)
    return framed if framed is not None and isinstance(framed.schema, int) else None


def prefix_of(key: SchemaKey) -> bytes:
    """Return the bytes that stand before a datum (of a number), or in a header (of a GUID)."""
    if isinstance(key, int):
        return _ID_MARKER + key.to_bytes(_ID_BYTES - 1, "big")
    return _GUID_MARKER + key.bytes


def _split(data: bytes) -> Framed | None:
    if data.startswith(_ID_MARKER) and len(data) >= _ID_BYTES:
        return Framed(int.from_bytes(data[1:_ID_BYTES], "big"), data[_ID_BYTES:])
    if data.startswith(_GUID_MARKER) and len(data) >= _GUID_BYTES:
        return Framed(UUID(bytes=data[1:_GUID_BYTES]), data[_GUID_BYTES:])
    return None
