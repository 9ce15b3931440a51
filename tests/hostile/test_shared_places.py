"""One caller that takes all it can of a shared place: it is bounded, and others are answered meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Prepared
from fakes.hash_encoder import HashEncoder
from query_api.contents.live_routes import LIVE_STREAMS, MAX_STREAMS
from query_api.encoding.query_encoder import QueryEncoderSettings
from query_api.http.guards.api_keys import ApiKeys
from query_api.serving.request_slots import QUEUED_PER_SLOT, REQUEST_SLOTS, RequestSlots
from tests.consumer.running import PATIENCE_SECONDS
from tests.hostile.limits import MAX_SECONDS, assert_bounded, longest_hold
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
GREEDY, OTHER = {"api-key": "greedy"}, {"api-key": "other"}
KEYS = ApiKeys.from_hex([hashlib.sha256(key["api-key"].encode()).hexdigest() for key in (GREEDY, OTHER)], [])
NUM_SLOTS = 8


class HeldEncoder(HashEncoder):
    """Does not encode long texts until it is let."""

    gate = threading.Event()

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        assert self.gate.wait(PATIENCE_SECONDS)
        return super().encode(prepared)


async def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def slots_of(client: Client) -> RequestSlots:
    assert client.app is not None
    return client.app[REQUEST_SLOTS]


@pytest.fixture
async def service(small_index: SmallIndex, start_service: StartService) -> Client:
    return await start_service(
        small_index, keys=KEYS, max_concurrent_requests=NUM_SLOTS, queue_seconds=PATIENCE_SECONDS
    )


async def is_answered(client: Client) -> bool:
    """Whether another caller gets an answer, and health is told."""
    index = await client.get("/v1/index", headers=OTHER)
    return index.status == (await client.get("/livez")).status == 200


async def test_slots_and_the_queue(small_index: SmallIndex, start_service: StartService) -> None:
    client = await start_service(
        small_index,
        encoder=HeldEncoder(),
        keys=KEYS,
        max_concurrent_requests=NUM_SLOTS,
        queue_seconds=PATIENCE_SECONDS,
    )
    body = {"text": "a red dress"}
    asked = [
        asyncio.create_task(client.post("/v1/search", json=body, headers=GREEDY))
        for _ in range(NUM_SLOTS * (QUEUED_PER_SLOT + 2))
    ]
    most = NUM_SLOTS * QUEUED_PER_SLOT * 3 // 4
    await until(lambda: slots_of(client).num_queued == most)

    async def ask_others() -> None:
        assert await is_answered(client)

    assert await longest_hold(ask_others) < MAX_SECONDS
    HeldEncoder.gate.set()
    statuses = [(await one).status for one in asked]
    assert statuses.count(200) == NUM_SLOTS * 3 // 4 + most
    assert set(statuses) == {200, 503}


async def test_waits_for_an_upload(service: Client) -> None:
    body = {"text": "red", "min_offsets": {f"{TOPIC}-0": 999}, "timeout_ms": 60_000}
    asked = [
        asyncio.create_task(service.post("/v1/search", json=body, headers=GREEDY))
        for _ in range(2 * NUM_SLOTS)
    ]
    await until(lambda: sum(one.done() for one in asked) == NUM_SLOTS)
    assert slots_of(service).num_waiting == NUM_SLOTS
    assert await is_answered(service)
    waiting = asyncio.create_task(service.post("/v1/search", json=body, headers=OTHER))
    await until(lambda: slots_of(service).num_waiting == NUM_SLOTS + 1)
    for one in (*asked, waiting):
        one.cancel()
    await asyncio.gather(*asked, waiting, return_exceptions=True)


async def test_live_streams(service: Client) -> None:
    assert service.app is not None
    async with AsyncExitStack() as stack:
        streams = [
            await stack.enter_async_context(service.get("/v1/live", headers=GREEDY))
            for _ in range(MAX_STREAMS + 1)
        ]
        assert [stream.status for stream in streams] == [200] * MAX_STREAMS + [503]
        assert service.app[LIVE_STREAMS].num_open == MAX_STREAMS
        assert await is_answered(service)
        assert (await stack.enter_async_context(service.get("/v1/live", headers=OTHER))).status == 200


async def test_the_cache_of_texts(small_index: SmallIndex, start_service: StartService) -> None:
    client = await start_service(
        small_index, keys=KEYS, query_encoder=QueryEncoderSettings(text_cache_entries=10)
    )
    for number in range(5):
        queries = [{"text": f"{number} {place}", "k": 1} for place in range(64)]
        response = await client.post("/v1/search", json={"queries": queries}, headers=GREEDY)
        assert response.status == 200
    assert await is_answered(client)


def test_the_queue_itself_costs_little_though_every_caller_is_another() -> None:
    async def fill() -> None:
        slots = RequestSlots(128, PATIENCE_SECONDS)

        async def work(caller: str) -> None:
            async with slots.working_in_turn(caller):
                await asyncio.sleep(0)

        await asyncio.gather(*(work(str(number)) for number in range(128 * 9)))

    assert_bounded(lambda: asyncio.run(fill()), 0, 2.0)
