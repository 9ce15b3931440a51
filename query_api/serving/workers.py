"""Threads for blocking work, which know what is under way, and for how long."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from aiohttp import web

_P = ParamSpec("_P")
_T = TypeVar("_T")
STUCK_SECONDS = 120.0  # of one call; a batch of the largest requests takes less
END_SECONDS = 5.0
_LOOK_SECONDS = 0.02


class Workers(ThreadPoolExecutor):
    """A pool that counts the calls that are queued or running.

    A call can hang, for example on a mapped page of a file system that does not answer. Its thread is
    then lost until the call returns. Nobody waits for it: requests have a deadline, and so has the end.
    """

    def __init__(self, num_threads: int) -> None:
        super().__init__(num_threads, thread_name_prefix="worker")
        self._counting = threading.Lock()
        self._num_busy = 0
        self._num_threads = num_threads
        self._running: dict[object, float] = {}  # since when each call runs

    @property
    def num_threads(self) -> int:
        return self._num_threads

    @property
    def are_stuck(self) -> bool:
        """Whether every thread has been in one call for `STUCK_SECONDS`."""
        return self.num_running_for(STUCK_SECONDS) >= self._num_threads

    def num_running_for(self, seconds: float) -> int:
        """Return how many threads have been in one call for longer than that."""
        now = time.monotonic()
        return sum(now - began > seconds for began in list(self._running.values()))

    @asynccontextmanager
    async def until_end(self) -> AsyncIterator[None]:
        """Work until the context ends. Then finish what was handed over, but do not wait for what hangs."""
        try:
            yield
        finally:
            self.shutdown(wait=False)
            end = time.monotonic() + END_SECONDS
            while self.is_busy and time.monotonic() < end:  # noqa: ASYNC110 (the threads tell nobody)
                await asyncio.sleep(_LOOK_SECONDS)

    @property
    def is_busy(self) -> bool:
        return self._num_busy > 0

    def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        """Make a call in a thread, for the running event loop. A call cancelled in time never starts."""
        return asyncio.get_running_loop().run_in_executor(self, partial(call, *args, **kwargs))

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        with self._counting:
            self._num_busy += 1
        try:
            future = super().submit(self._run_timed, partial(fn, *args, **kwargs))
        except RuntimeError:  # the pool is shut down
            self._count_done(None)
            raise
        future.add_done_callback(self._count_done)
        return future

    def _run_timed(self, call: Callable[[], _T]) -> _T:
        running = object()
        self._running[running] = time.monotonic()
        try:
            return call()
        finally:
            del self._running[running]

    def _count_done(self, _: object) -> None:
        with self._counting:
            self._num_busy -= 1


WORKERS = web.AppKey("workers", Workers)  # for preparing contents, searches, columns, large bodies
