"""Keeps a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pacer:
    """Lets `wait` through at most `per_second` times a second, evenly spaced; None lets it through at once.

    A caller that fell behind is let through without catching up: there is no burst after a stall.
    """

    def __init__(
        self,
        per_second: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval_seconds = 0.0 if per_second is None else 1.0 / per_second
        self._clock = clock
        self._sleep = sleep
        self._due = clock()

    def wait(self) -> None:
        early_seconds = self._due - self._clock()
        if early_seconds > 0:
            self._sleep(early_seconds)
        self._due = max(self._due, self._clock() - self._interval_seconds) + self._interval_seconds
