"""The writing side of an event log."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from event_log.records import Delivery, Headers


class Publisher(Protocol):
    """Publishes records durably (idempotent, acknowledged by all in-sync replicas); thread-safe."""

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        """Queue one record; waits while the queue is full.

        The future holds its delivery or an `EventLogError`.
        """

    def flush(self, timeout_seconds: float) -> int:
        """Wait until everything queued is acknowledged; return how many records are not."""

    def close(self) -> None: ...


class Offering(Publisher, Protocol):
    """A publisher for threads that must not wait."""

    def offer(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        """As `publish`, but without waiting: a full queue is a `TransientLogError`."""
