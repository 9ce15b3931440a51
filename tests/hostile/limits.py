"""The three limits of hostile inputs: time that the event loop is held, memory, and answers to others."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp.test_utils import TestClient

MAX_SECONDS = 0.5
MEMORY_FACTOR = 8
SMALL_INPUT = 4 * 2**20  # less memory than for this one is not asked for


def assert_bounded(call: Callable[[], object], num_bytes: int, max_seconds: float = MAX_SECONDS) -> None:
    """Make a call twice: it takes little processor time, and little memory for an input of that size.

    Processor time and not waiting, because other work on the machine stretches the latter. It is that of all
    threads, and those of OpenMP spin for a while after the work of an earlier test. So a call that seems to
    take long is made once more.
    """
    seconds = _processor_seconds(call)
    if seconds >= max_seconds:
        seconds = _processor_seconds(call)
    assert seconds < max_seconds, f"took {seconds:.2f} s"
    tracemalloc.start()
    try:
        call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_FACTOR * max(num_bytes, SMALL_INPUT), f"took {peak} bytes"


@contextmanager
def earlier_objects_frozen() -> Iterator[None]:
    """Leave out of garbage collection what lives already, as a service does once it has started.

    In a process that has run thousands of tests, a full collection takes half a second. It comes at the call
    whose allocations happen to fill the count, and its time would be taken for that of the call.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _processor_seconds(call: Callable[[], object]) -> float:
    with earlier_objects_frozen():
        began = time.process_time()
        call()
        return time.process_time() - began


async def longest_hold(call: Callable[[], Awaitable[Any]]) -> float:
    """Make a call; return the longest time for which the event loop's thread worked without a turn."""
    longest, has_ended = 0.0, False

    async def turn() -> None:
        nonlocal longest
        before = time.thread_time()
        while not has_ended:
            await asyncio.sleep(0.002)
            now = time.thread_time()
            longest, before = max(longest, now - before), now

    with earlier_objects_frozen():
        turning = asyncio.create_task(turn())
        try:
            await call()
        finally:
            has_ended = True
            await turning
    return longest


async def assert_others_are_answered(
    client: TestClient[Any, Any], call: Callable[[], Awaitable[Any]]
) -> None:
    """Make a call; meanwhile the loop is held for no longer than it may, and another client is answered."""
    statuses = []

    async def ask() -> None:
        response = await client.get("/v1/search", params={"q": "red"})
        statuses.append(response.status)

    async def both() -> None:
        await asyncio.gather(call(), ask(), ask())

    assert await longest_hold(both) < MAX_SECONDS
    assert statuses == [200, 200]
