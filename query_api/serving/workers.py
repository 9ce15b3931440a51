"""Threads for blocking work, which know whether any of it is under way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from aiohttp import web

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Workers(ThreadPoolExecutor):
    """A pool that counts the calls that are queued or running."""

    def __init__(self, num_threads: int) -> None:
        super().__init__(num_threads, thread_name_prefix="worker")
        self._counting = threading.Lock()
        self._num_busy = 0

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
            future = super().submit(fn, *args, **kwargs)
        except RuntimeError:  # the pool is shut down
            self._count_done(None)
            raise
        future.add_done_callback(self._count_done)
        return future

    def _count_done(self, _: object) -> None:
        with self._counting:
            self._num_busy -= 1


WORKERS = web.AppKey("workers", Workers)  # for preparing contents, searches, columns, large bodies
