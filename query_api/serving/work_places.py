"""How many requests are worked on at once, and how many may wait beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from query_api.errors import ApiError


class WorkPlaces:
    """`max_working` requests are worked on; as many again may wait for an upload to become searchable.

    Those that wait take no place, so that they keep nobody from being answered. For the event
    loop's thread. All refusals are `ApiError` (overloaded).
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
        """Take a place while the context lasts."""
        if self._num_working >= self._max_working:
            raise _overloaded("too many requests are worked on")
        self._num_working += 1
        try:
            yield
        finally:
            self._num_working -= 1

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Give the place that one has to others while the context lasts; none is waited for at its end."""
        if self._num_waiting >= self._max_working:
            raise _overloaded("too many requests wait for what is not searchable yet")
        self._num_waiting += 1
        self._num_working -= 1
        try:
            yield
        finally:
            self._num_waiting -= 1
            self._num_working += 1


def _overloaded(message: str) -> ApiError:
    return ApiError("overloaded", message, headers={"Retry-After": "1"})


WORK_PLACES = web.AppKey("work_places", WorkPlaces)
