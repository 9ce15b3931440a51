"""Jobs that run beside the requests, with pauses, until the service stops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class BackgroundJob:
    """A loop on the event loop, and one thread for its blocking calls.

    The calls pause often, so that requests get the processor. A low priority of the thread would not
    do: the thread would wait for its turn while it holds the GIL, and every request would wait with it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._is_stopping = threading.Event()

    @asynccontextmanager
    async def running(self, loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run the loop until the context ends; the end also ends its pauses and its calls."""
        task = asyncio.create_task(loop, name=self._name)
        try:
            yield
        finally:
            self.stop()
            task.cancel()
            await asyncio.wait([task])
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a blocking call in the thread. Only the loop uses this."""
        return await asyncio.wrap_future(self._thread.submit(call, *args, **kwargs))

    def pause(self, seconds: float) -> None:
        """Wait in the thread; raise `CancelledError` when the service stops."""
        if self._is_stopping.wait(seconds):
            raise CancelledError

    def stop(self) -> None:
        self._is_stopping.set()
