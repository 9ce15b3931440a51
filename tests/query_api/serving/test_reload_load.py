"""Hundreds of hot reloads under load: no failed request, and nothing that grows."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient

from clip_index.content import Delta, EncodedContent
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.writing.shard_writer import ShardWriter
from fakes.inline_merges import InlineLanes
from query_api.serving.served_index import ServedIndex
from query_api.swap.index_swap import INDEX_SWAP
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

NUM_RELOADS, NUM_ASKING = 200, 4
SHARD = f"{TOPIC}-0"


async def test_two_hundred_reloads_under_load_fail_no_request_and_leave_nothing_open(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client: TestClient[Any, Any] = await start_service(small_index, has_percentiles=False)
    done, turns = asyncio.Event(), asyncio.Semaphore(NUM_ASKING)
    asking = [asyncio.create_task(ask_until(done, client, turns)) for _ in range(NUM_ASKING)]
    generations, opened = set(), []
    writer = open_merging_writer(small_index)
    for number in range(NUM_RELOADS):
        # the same id again and again, and merges: what is live, and what is on disk, stays as small
        change = small_index.text("t-changing", f"number {number}")
        next_offset = await asyncio.to_thread(commit, writer, change)
        generations.add(await wait_until_covered(client, next_offset))
        if number % 5 == 0:
            async with nobody_asking(turns):
                await served_index_of(client).reload()
                opened.append(count_open(small_index.root))
    done.set()
    statuses = [status for task in asking for status in await task]
    assert len(generations) == NUM_RELOADS
    assert len(statuses) > NUM_RELOADS
    assert set(statuses) == {200}
    files, mappings = zip(*opened, strict=True)
    half = len(opened) // 2
    assert max(files[half:]) <= max(files[:half])
    assert max(mappings[half:]) <= max(mappings[:half])


def served_index_of(client: TestClient[Any, Any]) -> ServedIndex:
    assert client.app is not None
    return client.app[INDEX_SWAP].pair.index


@asynccontextmanager
async def nobody_asking(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    """Wait until those who ask have their answers, so that none holds a former searcher."""
    async with AsyncExitStack() as stack:
        for _ in range(NUM_ASKING):
            await stack.enter_async_context(turns)
        yield


def open_merging_writer(index: SmallIndex) -> ShardWriter:
    """A writer of the first shard whose merges are done at its next `maintain`."""
    lanes = InlineLanes()
    lanes.release(is_released=True)
    directory = IndexDirectory.open(index.root)
    return ShardWriter.take_over(directory, 0, Claim("merging"), lanes=lanes)


def commit(writer: ShardWriter, change: EncodedContent) -> int:
    start = writer.next_offset
    writer.add(Delta(start, start + 1, [replace(change, offset=start)]))
    next_offset = writer.commit()
    writer.maintain()
    return next_offset


async def ask_until(done: asyncio.Event, client: TestClient[Any, Any], turns: asyncio.Semaphore) -> list[int]:
    statuses = []
    while not done.is_set():
        async with turns, client.get("/v1/search", params={"q": "red dress"}) as response:
            statuses.append(response.status)
            await response.read()
    return statuses


async def wait_until_covered(client: TestClient[Any, Any], next_offset: int) -> int:
    body = {"text": "number", "k": 1, "min_offsets": {SHARD: next_offset}, "timeout_ms": 60_000}
    async with client.post("/v1/search", json=body) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return int(answer["snapshot"][SHARD]["generation"])


def count_open(root: Path) -> tuple[int, int]:
    """Return this process's open files and mappings below the index root."""
    gc.collect()
    descriptors = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            descriptors += os.readlink(descriptor).startswith(str(root))
        except FileNotFoundError:  # the listing's own
            continue
    mappings = sum(str(root) in line for line in Path("/proc/self/maps").read_text().splitlines())
    return descriptors, mappings
