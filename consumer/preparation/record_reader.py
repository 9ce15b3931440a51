"""From a record to its event."""

from __future__ import annotations

from typing import Protocol

from consumer.preparation.placement import Placement
from event_log.records import Headers, Record
from schemas.events import Event


class Decoder(Protocol):
    """Decodes records, or passes over them (None). Raises `BadEvent` or `UnknownSchema`. Thread-safe."""

    def decode(
        self, *, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int
    ) -> Event | None: ...


class RecordReader:
    """Decodes a record and looks whether it lies in the right partition. Thread-safe."""

    def __init__(self, decoder: Decoder, placement: Placement) -> None:
        self._decoder = decoder
        self._placement = placement

    def read(self, record: Record) -> Event | None:
        """Return the record's event, or None if it has none. Raises `BadEvent` or `UnknownSchema`."""
        self._placement.observe(record)
        event = self._decoder.decode(
            key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms
        )
        if event is not None:
            self._placement.check(record, event)
        return event
