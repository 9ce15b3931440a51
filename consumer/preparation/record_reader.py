"""From a record to its event."""

from __future__ import annotations

import threading
from typing import Protocol

import structlog

from consumer.preparation.placement import Placement
from event_log.records import Headers, Record
from schemas.errors import BadEvent
from schemas.events import Event


class Decoder(Protocol):
    """Decodes records, or passes over them (None). Raises an error of `schemas.errors`. Thread-safe."""

    def decode(
        self, *, key: bytes | None, value: bytes | None, headers: Headers, timestamp_ms: int
    ) -> Event | None: ...


class OtherKeyCounter(Protocol):
    """Is told of each record whose key is not its content id."""

    def inc(self) -> None: ...


class RecordReader:
    """Decodes a record and looks whether it lies in the right partition. Thread-safe.

    Only a mapping, and a key that is framed for a schema registry, make events whose record has another key.
    Their partition cannot be checked: they are counted, and the first one is logged.
    """

    def __init__(self, decoder: Decoder, placement: Placement, other_keys: OtherKeyCounter) -> None:
        self._decoder = decoder
        self._placement = placement
        self._other_keys = other_keys
        self._log = structlog.get_logger(__name__)
        self._lock = threading.Lock()
        self._has_spoken = False

    def read(self, record: Record) -> Event | None:
        """Return the record's event, or None if it has none. Raises an error of `schemas.errors`."""
        try:
            event = self._decoder.decode(
                key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms
            )
        except BadEvent:
            self._placement.observe(record)
            raise
        if event is not None:
            self._check(record, event)
        return event

    def _check(self, record: Record, event: Event) -> None:
        if event.content_id.encode() == record.key:
            self._placement.observe(record)
            self._placement.check(record, event)
            return
        self._other_keys.inc()
        with self._lock:
            is_first, self._has_spoken = not self._has_spoken, True
        if is_first:
            self._log.warning(
                "a key is not the content id",
                record=f"{record.topic}-{record.partition}@{record.offset}",
                way_on="all records of a content must have the same key, so that they lie in one partition",
            )
