"""Jobs that run beside the requests, with pauses, until the service stops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import structlog
from aiohttp import web

log = structlog.get_logger()
_P = ParamSpec("_P")
_T = TypeVar("_T")
HANGS_SECONDS = 600.0  # of one step between two pauses: a file of gigabytes may be read meanwhile


class BackgroundJobs:
    """The jobs that run, for those who ask whether all go on. Used by the event loop's thread alone."""

    def __init__(self) -> None:
        self._jobs: list[BackgroundJob] = []

    def add(self, job: BackgroundJob) -> None:
        self._jobs.append(job)

    def remove(self, job: BackgroundJob) -> None:
        self._jobs.remove(job)

    @property
    def problems(self) -> list[str]:
        """Say which job has ended or hangs. Requests are answered without it."""
        return [problem for job in self._jobs if (problem := job.problem) is not None]


BACKGROUND_JOBS = web.AppKey("background_jobs", BackgroundJobs)


class BackgroundJob:
    """A loop on the event loop, and one thread for its blocking calls.

    The calls pause often, so that requests get the processor.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._is_stopping = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._turned_at: float | None = None  # None outside of calls, which may wait for a change for ever

    @property
    def problem(self) -> str | None:
        """What is wrong with the job, None if it goes on."""
        turned_at = self._turned_at
        if self._task is not None and self._task.done() and not self._is_stopping.is_set():
            return f"the {self._name} job has ended; the log says why"
        if turned_at is not None and (seconds := time.monotonic() - turned_at) > HANGS_SECONDS:
            return f"the {self._name} job has not turned for {seconds:.0f} s"
        return None

    @asynccontextmanager
    async def running(self, loop: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run the loop until the context ends; the end also ends its pauses and its calls."""
        self._task = asyncio.create_task(loop, name=self._name)
        self._task.add_done_callback(self._tell_end)
        try:
            yield
        finally:
            self.stop()
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None  # an ended task refers to its loop's frame, and that one to the job's owner
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def run(self, call: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Make a blocking call in the thread. Only the loop uses this."""
        self._turned_at = time.monotonic()
        try:
            return await asyncio.wrap_future(self._thread.submit(call, *args, **kwargs))
        finally:
            self._turned_at = None

    def pause(self, seconds: float) -> None:
        """Wait in the thread; raise `CancelledError` when the service stops."""
        self._turned_at = time.monotonic() + seconds
        if self._is_stopping.wait(seconds):
            raise CancelledError

    def stop(self) -> None:
        self._is_stopping.set()

    def _tell_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a background job has ended", job=self._name, exc_info=error)
