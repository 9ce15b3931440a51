"""What a live stream sends: the state now, every change, and something each second."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from query_api.contents.live_routes import LIVE_STREAMS, MAX_STREAMS, LiveStreams, describe
from tests.query_api.conftest import StartService
from tests.query_api.small_index import OCCURRED_AT_MS, TOPIC, SmallIndex

Client = TestClient[Any, Any]
PATIENCE_SECONDS = 60.0


async def hear(response: ClientResponse) -> dict[str, Any]:
    """Read one event."""
    event = (await asyncio.wait_for(response.content.readuntil(b"\n\n"), PATIENCE_SECONDS)).decode()
    name, data = event.strip().split("\n")
    assert name == "event: index"
    state: dict[str, Any] = json.loads(data.removeprefix("data: "))
    return state


async def until_none_is_open(streams: LiveStreams) -> None:
    while streams.num_open > 0:  # noqa: ASYNC110 (the service notices a closed connection itself)
        await asyncio.sleep(0.01)


async def test_a_client_hears_the_state_at_once_and_each_change(
    small_index: SmallIndex, client: Client
) -> None:
    async with client.get("/v1/live") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        first = await hear(response)
        small_index.commit(0, small_index.text("t-new", "a green hat"))
        while (state := await hear(response))["num_contents"] == first["num_contents"]:
            pass
    assert first["num_contents"] == {"text": 3, "image": 3}
    assert state["num_contents"] == {"text": 4, "image": 3}
    shards = [state["snapshot"][f"{TOPIC}-0"], first["snapshot"][f"{TOPIC}-0"]]
    assert [shard["next_offset"] for shard in shards] == [4, 3]


async def test_a_client_hears_something_again_and_again_while_nothing_changes(client: Client) -> None:
    async with client.get("/v1/live") as response:
        first = await hear(response)
        assert (await hear(response))["snapshot"] == first["snapshot"]


async def test_streams_are_bounded_and_their_slots_come_free(client: Client) -> None:
    assert client.app is not None
    streams = client.app[LIVE_STREAMS]
    responses = [await client.get("/v1/live") for _ in range(MAX_STREAMS)]
    refused = await client.get("/v1/live")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
    assert (await refused.json())["error"]["code"] == "overloaded"
    for response in responses:
        response.close()
    await asyncio.wait_for(until_none_is_open(streams), PATIENCE_SECONDS)
    async with client.get("/v1/live") as response:
        assert response.status == 200


async def test_a_stopping_service_does_not_wait_for_its_streams(client: Client) -> None:
    async with client.get("/v1/live") as response:
        await hear(response)
        assert client.app is not None
        await client.app.shutdown()
        await asyncio.wait_for(response.content.read(), PATIENCE_SECONDS)


async def test_without_an_index_there_is_nothing_to_hear(tmp_path: Any, start_service: StartService) -> None:
    client = await start_service(SmallIndex(tmp_path / "nothing"))
    response = await client.get("/v1/live")
    assert (response.status, (await response.json())["error"]["code"]) == (503, "no_index")


def test_the_shard_that_is_most_behind_counts(small_index: SmallIndex) -> None:
    now_seconds = OCCURRED_AT_MS / 1000 + 7
    before = describe(searcher_of(small_index), now_seconds)
    small_index.commit(1, small_index.text("t-4", "a hat"), watermark_ms=OCCURRED_AT_MS + 5000)
    after = describe(searcher_of(small_index), now_seconds)
    assert (before.seconds_behind, after.seconds_behind) == (None, 7.0)


def test_a_slot_is_given_back_when_the_block_fails() -> None:
    streams = LiveStreams(max_streams=1)
    with pytest.raises(RuntimeError), streams.slot():
        raise RuntimeError
    assert streams.num_open == 0


def searcher_of(index: SmallIndex) -> Any:
    reader = index.open_reader()
    reader.reload()
    return reader.searcher
