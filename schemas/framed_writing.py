"""Writes events with the framing of a registry's serializers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from typing import TypeAlias

from schemas.avro.format import write_string
from schemas.codec import EncodedEvent, encode_event, encode_event_framed
from schemas.events import Event
from schemas.framing import KEY_HEADER, SchemaKey, prefix_of


def schema_text() -> str:
    """Return the text of the current schema, as it is registered."""
    return files("schemas").joinpath("upload_event.avsc").read_text("utf-8")


Register: TypeAlias = Callable[[str, str], SchemaKey]
"""Takes a subject and the text of a schema, and returns the key that the schema has then."""


class FramedEncoder:
    """Encodes events for one topic. Registers the schema before the first one. Thread-safe."""

    def __init__(self, register: Register, topic: str) -> None:
        self._schema = _Registered(register, f"{topic}-value", schema_text())

    def encode(self, event: Event) -> EncodedEvent:
        """Encode one event. Raises `BadEvent`, and what `register` raises."""
        return encode_event_framed(event, self._schema.key())


class KeyFramer:
    """Frames the keys of encoded events as the Avro serializer does it for a text. Thread-safe.

    Who frames keys must do so for every record of a content, because the bytes of the key choose the
    partition, and a delete in another partition does not reach its content.
    """

    def __init__(self, encode: Callable[[Event], EncodedEvent], register: Register, topic: str) -> None:
        self._encode = encode
        self._schema = _Registered(register, f"{topic}-key", '"string"')

    def encode(self, event: Event) -> EncodedEvent:
        """Encode one event. Raises what the other encoder raises, and what `register` raises."""
        encoded, schema = self._encode(event), self._schema.key()
        datum = write_string(encoded.key)
        if isinstance(schema, int):
            return replace(encoded, key=prefix_of(schema) + datum)
        return replace(encoded, key=datum, headers=(*encoded.headers, (KEY_HEADER, prefix_of(schema))))


def framing_encoder(
    register: Register, topic: str, *, frames_values: bool, frames_keys: bool
) -> Callable[[Event], EncodedEvent]:
    """Return how events are encoded for a topic; without either framing, as always."""
    encode = FramedEncoder(register, topic).encode if frames_values else encode_event
    return KeyFramer(encode, register, topic).encode if frames_keys else encode


class _Registered:
    """A schema that is registered when its key is first asked for."""

    def __init__(self, register: Register, subject: str, text: str) -> None:
        self._register = register
        self._subject = subject
        self._text = text
        self._lock = threading.Lock()
        self._key: SchemaKey | None = None

    def key(self) -> SchemaKey:
        with self._lock:
            if self._key is None:
                self._key = self._register(self._subject, self._text)
            return self._key
