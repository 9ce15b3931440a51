"""Measures freshness: the seconds from an acknowledgement until the index was first seen to cover it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from cliptide.searching.query_client import IndexState, QueryServiceAway, QueryServiceError
from cliptide.searching.searchable import IndexView, shard_of
from event_log.errors import EventLogError
from event_log.publisher import Publisher
from event_log.records import Delivery, Headers

POLL_SECONDS = 0.02


class FreshnessLog:
    """Matches acknowledgements with the offsets that the index covers. Thread-safe; reads no clock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, dict[int, float]] = {}  # shard → next offset → acknowledged at
        self._seconds: list[float] = []

    def acknowledged(self, delivery: Delivery, at_seconds: float) -> None:
        with self._lock:
            self._waiting.setdefault(shard_of(delivery), {})[delivery.next_offset] = at_seconds

    def covered(self, next_offsets: Mapping[str, int], at_seconds: float) -> None:
        """Record every acknowledged upload below these offsets as searchable at `at_seconds`."""
        with self._lock:
            for shard, waiting in self._waiting.items():
                reached = next_offsets.get(shard, 0)
                for next_offset in [offset for offset in waiting if offset <= reached]:
                    self._seconds.append(at_seconds - waiting.pop(next_offset))

    @property
    def num_waiting(self) -> int:
        with self._lock:
            return sum(len(waiting) for waiting in self._waiting.values())

    @property
    def seconds(self) -> list[float]:
        with self._lock:
            return list(self._seconds)


@dataclass(frozen=True, slots=True)
class TimedPublisher:
    """A publisher that logs the time of every acknowledgement."""

    publisher: Publisher
    log: FreshnessLog
    clock: Callable[[], float] = time.monotonic

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        future = self.publisher.publish(topic, key=key, value=value, headers=headers)
        future.add_done_callback(self._log_acknowledgement)
        return future

    def flush(self, timeout_seconds: float) -> int:
        return self.publisher.flush(timeout_seconds)

    def close(self) -> None:
        self.publisher.close()

    def _log_acknowledgement(self, future: Future[Delivery]) -> None:
        try:
            self.log.acknowledged(future.result(), self.clock())
        except EventLogError:
            return  # the publishing thread reads this error from the same future


class IndexWatch:
    """Asks for the state of the index every 20 ms, on a thread of its own, and keeps the newest.

    If an error has ended the thread, `state` raises it.
    """

    def __init__(
        self, view: IndexView, log: FreshnessLog, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._view = view
        self._log = log
        self._clock = clock
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="index-watch", daemon=True)
        self._state = IndexState({}, 0)
        self._failure: QueryServiceError | None = None

    def __enter__(self) -> IndexWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def state(self) -> IndexState:
        if self._failure is not None:
            raise self._failure
        return self._state

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                self.look()
                self._ended.wait(POLL_SECONDS)
        except QueryServiceError as error:
            self._failure = error

    def look(self) -> None:
        """Ask once. Do nothing if the service is starting or busy, because the next look comes soon."""
        try:
            self._state = self._view.index()
        except QueryServiceAway:
            return
        self._log.covered(self._state.next_offsets, self._clock())


def percentile(values: list[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all do not exceed; 0 without values."""
    if not values:
        return 0.0
    ordered = sorted(values)
    rank = -(-len(ordered) * share // 1)  # ceiling
    return ordered[max(int(rank) - 1, 0)]
