"""What librdkafka writes to its log, and how often a line that repeats is written again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

_AGAIN_AFTER_SECONDS = 60.0


@dataclass(slots=True)
class _Told:
    """When a kind of line may be told again, and how many were left out since it was."""

    due_at: float
    num_left_out: int = 0


class RepeatLimit:
    """Lets a kind of line pass at once, and then once a minute. Thread-safe."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, _Told] = {}

    def passes(self, kind: str) -> int | None:
        """Return how many lines of this kind were left out before this one; None to leave it out too."""
        now = self._clock()
        with self._lock:
            told = self._told.get(kind)
            if told is not None and now < told.due_at:
                told.num_left_out += 1
                return None
            self._told[kind] = _Told(now + _AGAIN_AFTER_SECONDS)
        return told.num_left_out if told is not None else 0


class LibrdkafkaLog:
    """The logger that librdkafka is given: its lines become structured log events.

    A client without a broker repeats its errors several times a second. So each facility of librdkafka
    is told once a minute at most. All clients of a process share one such logger.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger("librdkafka")
        self._limit = RepeatLimit(clock=clock)

    def log(self, level: int, _format: str, facility: str, client: str, message: str) -> None:
        # Reader, publisher and admin get the same properties, so each warns of those meant for the others.
        if facility == "CONFWARN":
            level = logging.DEBUG
        left_out = self._limit.passes(facility)
        if left_out is None:
            return
        counted = {"left_out": left_out} if left_out else {}
        self._log.log(level, "librdkafka", facility=facility, client=client, message=message, **counted)
