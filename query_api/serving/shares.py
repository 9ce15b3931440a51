"""Slots that all callers share, and of which no caller may take more than its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_RESERVED = 4  # a quarter of the slots is kept for callers that hold less than a quarter
CALLERS_AT_ONCE = 4  # so many callers must ask for all they may before another finds no slot


def leaves_the_last_quarter(num_slots: int, held: Mapping[str, int], caller: str) -> bool:
    """Whether a caller may take one more: the last quarter is for callers that hold less than a quarter."""
    quarter = num_slots // _RESERVED
    num_free = num_slots - sum(held.values())
    is_small = held.get(caller, 0) < max(1, quarter)
    return num_free > (0 if is_small else quarter)


class SharedSlots:
    """`max_each` slots for each caller, and `CALLERS_AT_ONCE` times as many in all.

    Used by the event loop's thread alone.
    """

    def __init__(self, max_each: int) -> None:
        self._max_each = max_each
        self._held: Counter[str] = Counter()

    @property
    def num_held(self) -> int:
        return self._held.total()

    def has_slot_for(self, caller: str) -> bool:
        is_full = self.num_held >= CALLERS_AT_ONCE * self._max_each
        return not is_full and self._held[caller] < self._max_each

    @contextmanager
    def held_by(self, caller: str) -> Iterator[None]:
        """Hold a slot while the context lasts. The caller has asked whether there is one."""
        self._held[caller] += 1
        try:
            yield
        finally:
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]
