"""The writing side of an event log."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

from event_log.records import Delivery, Headers


class Publisher(Protocol):
    """Publishes records idempotently; a delivery is acknowledged by all in-sync replicas. Thread-safe."""

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        """Queue one record, and wait while the queue is full.

        The future's result is the delivery, its exception an `EventLogError`.
        """

    def flush(self, timeout_seconds: float) -> int:
        """Wait until every queued record is acknowledged; return how many are not after the timeout."""

    def close(self) -> None: ...


class NonBlockingPublisher(Publisher, Protocol):
    """A publisher for threads that must not wait."""

    def offer(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        """Queue one record without waiting. If the queue is full, the future fails: `TransientLogError`."""
