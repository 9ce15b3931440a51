"""Writes events with the framing of a registry's serializers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib.resources import files

from schemas.codec import EncodedEvent, encode_event_framed
from schemas.events import Event
from schemas.framing import SchemaKey


def schema_text() -> str:
    """Return the text of the current schema, as it is registered."""
    return files("schemas").joinpath("upload_event.avsc").read_text("utf-8")


class FramedEncoder:
    """Encodes events for one topic. Registers the schema before the first one. Thread-safe."""

    def __init__(self, register: Callable[[str, str], SchemaKey], topic: str) -> None:
        """`register` takes a subject and the text of a schema, and returns the key that it has then."""
        self._register = register
        self._subject = f"{topic}-value"
        self._lock = threading.Lock()
        self._key: SchemaKey | None = None

    def encode(self, event: Event) -> EncodedEvent:
        """Encode one event. Raises `BadEvent`, and what `register` raises."""
        return encode_event_framed(event, self._registered())

    def _registered(self) -> SchemaKey:
        with self._lock:
            if self._key is None:
                self._key = self._register(self._subject, schema_text())
            return self._key
