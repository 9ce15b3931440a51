"""Who is told what is searchable, as it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from query_api.errors import ApiError

MAX_LISTENERS = 32


class LiveListeners:
    """Who listens, at most `max_listeners`, until the service stops."""

    def __init__(self, max_listeners: int = MAX_LISTENERS) -> None:
        self._max_listeners = max_listeners
        self._num_listeners = 0
        self.stopping = asyncio.Event()

    @property
    def num_listeners(self) -> int:
        return self._num_listeners

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for as long as the block runs; `ApiError` (overloaded) when there is none."""
        if self._num_listeners >= self._max_listeners:
            raise ApiError("overloaded", "too many are listening", headers={"Retry-After": "5"})
        self._num_listeners += 1
        try:
            yield
        finally:
            self._num_listeners -= 1

    async def stop(self, _: web.Application) -> None:
        """End every stream: a stopping service waits for its requests."""
        self.stopping.set()
