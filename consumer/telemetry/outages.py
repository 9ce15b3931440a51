"""What the consumer waits for at this moment, and what its log says about that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from prometheus_client import Counter

_LOG_EVERY_SECONDS = 60.0


@dataclass(slots=True)
class _Outage:
    """The outage of one place: the latest error of each part of it that still fails."""

    began_at: float
    log_due_at: float
    num_failures: int
    errors: dict[str, str]


class Outages:
    """Follows failures that the consumer waits out. Thread-safe.

    An outage belongs to a place (`log`, `index`, …), which may fail in several parts, such as shards.
    It begins with the first failure of a part and ends when every part has succeeded again. Readiness
    is red meanwhile. The log tells its beginning, once a minute that it lasts, and its end.
    """

    def __init__(self, failures: Counter, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures = failures
        self._clock = clock
        self._log = structlog.get_logger(__name__)
        self._lock = threading.Lock()
        self._outages: dict[str, _Outage] = {}

    def failed(self, place: str, error: Exception, *, part: str = "") -> None:
        """A part of a place has failed, and will be tried again."""
        self._failures.labels(place).inc()
        now, text = self._clock(), str(error) or type(error).__name__
        with self._lock:
            outage = self._outages.setdefault(place, _Outage(now, now, 0, {}))
            outage.num_failures += 1
            outage.errors[part] = text
            if now < outage.log_due_at:
                return
            outage.log_due_at = now + _LOG_EVERY_SECONDS
            num_failures, seconds = outage.num_failures, round(now - outage.began_at)
        self._log.warning(
            "waiting", place=place, part=part, error=text, failures=num_failures, seconds=seconds
        )

    def ended(self, place: str, *, part: str = "") -> None:
        """The part has succeeded, or is not ours any more."""
        if place not in self._outages:  # without the lock, because this is called all the time
            return
        with self._lock:
            outage = self._outages.get(place)
            if outage is None or outage.errors.pop(part, None) is None or outage.errors:
                return
            del self._outages[place]
        seconds = round(self._clock() - outage.began_at)
        self._log.info("waiting ended", place=place, failures=outage.num_failures, seconds=seconds)

    @contextmanager
    def watched(self, place: str, *, part: str = "") -> Iterator[None]:
        """Whatever becomes of the block, the part is not waited for after it."""
        try:
            yield
        finally:
            self.ended(place, part=part)

    @property
    def problems(self) -> list[str]:
        """One sentence for each part that fails."""
        with self._lock:
            return [
                f"waiting for {place}{f' ({part})' if part else ''}: {error}"
                for place, outage in self._outages.items()
                for part, error in outage.errors.items()
            ]
