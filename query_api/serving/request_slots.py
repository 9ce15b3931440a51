"""How many requests are worked on at once, and how many may wait for the index beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from query_api.errors import ApiError
from query_api.serving.shares import SharedSlots

_RESERVED = 4  # a quarter of the slots is kept for callers that hold less than a quarter


class RequestSlots:
    """`max_working` requests have a slot; as many of each caller may wait until the index covers an upload.

    The last quarter of the slots is for callers that hold less than a quarter, so that no caller keeps
    out all others. A request that waits for the index gives up its slot, so that others are answered
    meanwhile. Used by the event loop's thread alone. Every refusal is an `ApiError` (overloaded).
    """

    def __init__(self, max_working: int) -> None:
        self._max_working = max_working
        self._quarter = max_working // _RESERVED
        self._working: Counter[str] = Counter()
        self._waiting = SharedSlots(max_working)

    @property
    def num_waiting(self) -> int:
        return self._waiting.num_held

    def of(self, caller: str) -> CallerSlots:
        return CallerSlots(self, caller)

    @contextmanager
    def working(self, caller: str = "") -> Iterator[None]:
        """Hold a slot while the context lasts."""
        num_free = self._max_working - self._working.total()
        is_small = self._working[caller] < max(1, self._quarter)
        if num_free <= (0 if is_small else self._quarter):
            raise _overloaded("too many requests are being answered")
        self._take(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    @contextmanager
    def waiting(self, caller: str = "") -> Iterator[None]:
        """Give up this request's slot while it waits for the index.

        It takes a slot back at once at the end, even if that exceeds the bound for a moment.
        """
        if not self._waiting.has_slot_for(caller):
            raise _overloaded("too many requests are waiting for uploads to become searchable")
        with self._waiting.held_by(caller):
            self._give_back(caller)
            try:
                yield
            finally:
                self._take(caller)

    def _take(self, caller: str) -> None:
        self._working[caller] += 1

    def _give_back(self, caller: str) -> None:
        self._working[caller] -= 1
        if not self._working[caller]:
            del self._working[caller]


@dataclass(frozen=True, slots=True)
class CallerSlots:
    """The slots as one caller sees them."""

    slots: RequestSlots
    caller: str

    def waiting(self) -> AbstractContextManager[None]:
        return self.slots.waiting(self.caller)


REQUEST_SLOTS = web.AppKey("request_slots", RequestSlots)


def _overloaded(message: str) -> ApiError:
    return ApiError("overloaded", message, headers={"Retry-After": "1"})
