"""How many requests are worked on at once, how many queue, and how many may wait for the index besides."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass

from aiohttp import web

from query_api.errors import ApiError
from query_api.serving.fair_queue import FairQueue
from query_api.serving.shares import SharedSlots, leaves_the_last_quarter

SLOTS_PER_CORE = 8  # enough for the batches of the encoder, and for requests that wait for a disk
QUEUED_PER_SLOT = 8
DEFAULT_WAITING = 128  # of each caller, until an upload is searchable; they cost no core


class RequestSlots:
    """`max_working` requests have a slot; `max_waiting` of each caller may wait for the index besides.

    The last quarter of the slots is for callers that hold less than a quarter, so that no caller keeps
    out all others. More requests queue: at most `QUEUED_PER_SLOT` for each slot, and none longer than
    `queue_seconds`. So a client learns in time that the service has too much to do. A free slot goes to
    the queueing caller that holds the fewest. A request that waits for the index gives up its slot, so
    that others are answered meanwhile. Used by the event loop's thread alone. Every refusal is an
    `ApiError` (overloaded).
    """

    def __init__(self, max_working: int, queue_seconds: float = 0.0, max_waiting: int | None = None) -> None:
        self._max_working = max_working
        self._queue_seconds = queue_seconds
        self._working: Counter[str] = Counter()
        self._waiting = SharedSlots(max_working if max_waiting is None else max_waiting)
        self._queue = FairQueue(QUEUED_PER_SLOT * max_working)

    @property
    def num_working(self) -> int:
        return self._working.total()

    @property
    def num_waiting(self) -> int:
        return self._waiting.num_held

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    def of(self, caller: str) -> CallerSlots:
        return CallerSlots(self, caller)

    def has_slot_for(self, caller: str) -> bool:
        return leaves_the_last_quarter(self._max_working, self._working, caller)

    @contextmanager
    def working(self, caller: str = "") -> Iterator[None]:
        """Hold a slot while the context lasts. If none is free, refuse at once."""
        if not self.has_slot_for(caller):
            raise _overloaded("too many requests are being answered")
        self._take(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    @asynccontextmanager
    async def working_in_turn(self, caller: str = "") -> AsyncIterator[None]:
        """Hold a slot while the context lasts. If none is free, queue for one."""
        if self.has_slot_for(caller):
            self._take(caller)
        else:
            await self._queue_up(caller)
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

    async def _queue_up(self, caller: str) -> None:
        """Return as soon as the caller has been given a slot."""
        if not self._queue_seconds or not self._queue.has_room_for(caller):
            raise _overloaded("too many requests are being answered")
        turn = self._queue.join(caller)
        try:
            await asyncio.wait([turn], timeout=self._queue_seconds)
        except asyncio.CancelledError:  # the client left
            if turn.done():
                self._give_back(caller)
            raise
        finally:
            if not turn.done():
                self._queue.leave(caller, turn)
        if not turn.done():
            raise _overloaded(f"no slot became free for this request within {self._queue_seconds:g} s")

    def _take(self, caller: str) -> None:
        self._working[caller] += 1

    def _give_back(self, caller: str) -> None:
        """Give up a slot, and hand out those that are free now."""
        self._working[caller] -= 1
        if not self._working[caller]:
            del self._working[caller]
        while (following := self._queue.next_caller(self.has_slot_for, self._working)) is not None:
            self._take(following)
            self._queue.call(following)


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
