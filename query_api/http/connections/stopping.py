"""Whether the service is stopping, which its readiness and its answers then say."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from aiohttp import web


class Stopping:
    """Set once, when the service begins to stop. Used by the event loop's thread alone."""

    def __init__(self) -> None:
        self.has_begun = False

    def begin(self) -> None:
        self.has_begun = True


STOPPING = web.AppKey("stopping", Stopping)


class StopSignals:
    """What SIGTERM and SIGINT mean to a service behind a load balancer.

    SIGTERM begins the drain: the service still answers, so that a balancer can see that it is not
    ready. A second signal ends the drain. SIGINT comes from a person at a terminal: there is no drain.
    """

    def __init__(self) -> None:
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()

    def receive(self, number: int) -> None:
        if number == signal.SIGINT or self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def listen(self) -> None:
        """Receive the signals of this process from now on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.receive, number)

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._stop.wait()

    async def drain(self, seconds: float) -> None:
        """Wait until the drain is over."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop_now.wait(), seconds)
