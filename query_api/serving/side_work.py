"""Work that goes on beside the requests, with rests, until the service stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class SideWork:
    """One thread, which leaves the processor to requests by resting, and a task that feeds it.

    Not by a low priority of the thread: while it waited for its turn with Python's lock in
    hand, every request would wait with it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._is_stopping = threading.Event()

    @asynccontextmanager
    async def going_on(self, forever: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run the task until the context ends, which ends rests and calls as well."""
        task = asyncio.create_task(forever, name=self._name)
        try:
            yield
        finally:
            self.stop()
            task.cancel()
            await asyncio.wait([task])
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a call in the thread; for the task."""
        return await asyncio.wrap_future(self._thread.submit(call, *args, **kwargs))

    def rest(self, seconds: float) -> None:
        """Wait in the thread; `CancelledError` when the service stops."""
        if self._is_stopping.wait(seconds):
            raise CancelledError

    def stop(self) -> None:
        self._is_stopping.set()
