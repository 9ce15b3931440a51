"""When a loop last turned, which health asks: a thread can live and hang."""

from __future__ import annotations

import time


class Turns:
    """Its loop marks each turn, also while it waits for what may take long. Read by other threads."""

    __slots__ = ("_turned_at",)

    def __init__(self) -> None:
        self.mark()

    def mark(self) -> None:
        self._turned_at = time.monotonic()

    @property
    def seconds_since(self) -> float:
        return time.monotonic() - self._turned_at
