"""Looks often and cheaply whether a newer generation is there, in a thread of its own."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

from clip_index.errors import ClipIndexError
from query_api.serving.engine import Reader

FULL_LOOK_SECONDS = 0.5
"""A full look also finds new watermarks, another index at the same path, and directories put back."""


class QuickLooks:
    """Waits between two full looks, and asks the reader every `interval_seconds` for a hint of news.

    A full look crosses from the event loop to a thread and back, and reads files of each shard. A hundred of
    them a second took 4 % of a processor while nothing happened. A quick look is one question to the file
    system for each shard, and the thread that asks it stays in its own loop.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.num_awaiting = 0
        """How many requests wait for a newer generation. While there are some, there is no rest."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quick look")
        self._is_closing = False
        self._looking_since: float | None = None

    @property
    def looking_since(self) -> float | None:
        """When the present quick look began; None between two of them. It hangs if that was long ago."""
        return self._looking_since

    async def wait(self, interval_seconds: float, rest_seconds: float = 0.0) -> None:
        """Return when a full look is due: after a hint, or after 0.5 s or the interval if that is longer.

        For the first `rest_seconds` nothing is looked for, unless somebody waits for it.
        """
        if interval_seconds >= FULL_LOOK_SECONDS:
            await asyncio.sleep(interval_seconds)
            return
        await asyncio.get_running_loop().run_in_executor(
            self._thread, self._wait, interval_seconds, rest_seconds
        )

    def close(self) -> None:
        self._is_closing = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _wait(self, interval_seconds: float, rest_seconds: float) -> None:
        began = time.monotonic()
        rested, deadline = began + rest_seconds, began + FULL_LOOK_SECONDS
        while not self._is_closing and time.monotonic() < deadline:
            time.sleep(interval_seconds)  # an event with a timeout would take five times the CPU time
            if (time.monotonic() >= rested or self.num_awaiting) and self._has_news():
                return

    def _has_news(self) -> bool:
        self._looking_since = time.monotonic()
        try:
            return self._reader.may_have_news()
        except (ClipIndexError, OSError):
            return True  # the full look meets the same trouble, and tells of it
        finally:
            self._looking_since = None
