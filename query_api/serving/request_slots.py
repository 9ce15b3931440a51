"""How many requests are worked on at once, and how many may wait for the index beside them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

from query_api.errors import ApiError

SLOTS_PER_CORE = 8  # enough for the batches of the encoder, and for requests that wait for a disk
QUEUED_PER_SLOT = 8


class RequestSlots:
    """`max_working` requests have a slot; `max_waiting` more may wait until the index covers an upload.

    More requests queue, first come, first served: at most `QUEUED_PER_SLOT` for each slot, and none
    longer than `queue_seconds`. So a client learns in time that the service has too much to do, instead
    of waiting behind all others. A request that waits for the index gives up its slot, so that others
    are answered meanwhile. Used by the event loop's thread alone. Every refusal is an `ApiError`
    (overloaded).
    """

    def __init__(self, max_working: int, queue_seconds: float = 0.0, max_waiting: int = 128) -> None:
        self._max_working = max_working
        self._max_waiting = max_waiting
        self._queue_seconds = queue_seconds
        self._queue: deque[asyncio.Future[None]] = deque()
        self._num_working = 0
        self._num_waiting = 0

    @property
    def num_waiting(self) -> int:
        return self._num_waiting

    @property
    def are_taken(self) -> bool:
        return self._num_working >= self._max_working

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Hold a slot while the context lasts. If none is free, queue for one."""
        if self.are_taken:
            await self._queue_up()
        else:
            self._num_working += 1
        try:
            yield
        finally:
            self._give_back()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Give up this request's slot while it waits for the index.

        It takes a slot back at once at the end, even if that exceeds the bound for a moment.
        """
        if self._num_waiting >= self._max_waiting:
            raise _overloaded("too many requests are waiting for uploads to become searchable")
        self._num_waiting += 1
        self._give_back()
        try:
            yield
        finally:
            self._num_waiting -= 1
            self._num_working += 1

    async def _queue_up(self) -> None:
        if not self._queue_seconds or len(self._queue) >= QUEUED_PER_SLOT * self._max_working:
            raise _overloaded("too many requests are being answered")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await asyncio.wait([turn], timeout=self._queue_seconds)
        except asyncio.CancelledError:  # the client left
            if turn.done():
                self._give_back()
            raise
        finally:
            if not turn.done():
                self._queue.remove(turn)
        if not turn.done():
            raise _overloaded(f"no request was finished for this one within {self._queue_seconds:g} s")

    def _give_back(self) -> None:
        """Give up a slot, and hand it to the request that has queued longest."""
        self._num_working -= 1
        while self._queue and not self.are_taken:
            self._num_working += 1
            self._queue.popleft().set_result(None)


REQUEST_SLOTS = web.AppKey("request_slots", RequestSlots)


def _overloaded(message: str) -> ApiError:
    return ApiError("overloaded", message, headers={"Retry-After": "1"})
