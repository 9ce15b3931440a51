"""How many requests are worked on at once, and how many may wait for the index beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from query_api.errors import ApiError


class RequestSlots:
    """`max_working` requests have a slot; as many again may wait until the index covers an upload.

    A request that waits for the index gives up its slot, so that others are answered meanwhile. Used
    by the event loop's thread alone. Every refusal is an `ApiError` (overloaded).
    """

    def __init__(self, max_working: int) -> None:
        self._max_working = max_working
        self._num_working = 0
        self._num_waiting = 0

    @property
    def num_waiting(self) -> int:
        return self._num_waiting

    @contextmanager
    def working(self) -> Iterator[None]:
        """Hold a slot while the context lasts."""
        if self._num_working >= self._max_working:
            raise _overloaded("too many requests are being answered")
        self._num_working += 1
        try:
            yield
        finally:
            self._num_working -= 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Give up this request's slot while it waits for the index.

        It takes a slot back at once at the end, even if that exceeds the bound for a moment.
        """
        if self._num_waiting >= self._max_working:
            raise _overloaded("too many requests are waiting for uploads to become searchable")
        self._num_waiting += 1
        self._num_working -= 1
        try:
            yield
        finally:
            self._num_waiting -= 1
            self._num_working += 1


REQUEST_SLOTS = web.AppKey("request_slots", RequestSlots)


def _overloaded(message: str) -> ApiError:
    return ApiError("overloaded", message, headers={"Retry-After": "1"})
