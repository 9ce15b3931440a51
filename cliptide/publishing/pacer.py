"""Keeps publishing at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pacer:
    """Makes each `wait` return so that they are evenly spaced, `per_second` of them; None: at once.

    After a stall the pace goes on as before. Missed calls are not made up for, so no burst follows.
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
