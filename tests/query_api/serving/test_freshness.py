"""Demands on freshness, and hot reload."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from query_api.serving.served_index import ServedIndex
from query_api.swap.index_swap import INDEX_SWAP
from query_api.telemetry.metrics import Metrics
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService, metrics_of
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
SHARD = "content-uploads-0"
PATIENCE_MS = int(1000 * PATIENCE_SECONDS)


async def test_offsets_that_are_covered_are_answered_at_once(client: Client) -> None:
    response = await client.post(
        "/v1/search", json={"text": "red", "min_offsets": {SHARD: 3}, "timeout_ms": 0}
    )
    assert response.status == 200


async def test_a_search_waits_until_its_offsets_are_searchable(
    small_index: SmallIndex, client: Client, has_to_wait: asyncio.Event
) -> None:
    body = {"text": "a green hat", "modality": "text", "min_offsets": {SHARD: 4}, "timeout_ms": PATIENCE_MS}
    waiting = asyncio.create_task(client.post("/v1/search", json=body))
    await asyncio.wait_for(has_to_wait.wait(), PATIENCE_SECONDS)
    assert not waiting.done()
    small_index.commit(0, small_index.text("t-hat", "a green hat"))
    answer = await (await waiting).json()
    assert answer["results"]["text"]["hits"][0]["content_id"] == "t-hat"
    assert answer["snapshot"][SHARD]["next_offset"] >= 4


async def test_offsets_that_do_not_come_in_time_are_a_503_that_says_what_is_missing(client: Client) -> None:
    params = {"q": "red", "min_offsets": f"{SHARD}:99,content-uploads-1:1", "timeout_ms": "20"}
    response = await client.get("/v1/search", params=params)
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (503, "not_yet_covered")
    assert error["details"] == [{"shard": SHARD, "required_next_offset": 99, "next_offset": 3}]
    assert response.headers["Retry-After"] == "1"


async def test_a_known_partition_without_a_shard_is_waited_for(
    tmp_path: Path, start_service: StartService
) -> None:
    index = SmallIndex(tmp_path / "one", num_partitions=2).create()
    index.commit(0, index.text("t", "a red dress"))
    client = await start_service(index)
    body = {"text": "red", "min_offsets": {"content-uploads-1": 1}, "timeout_ms": 10}
    response = await client.post("/v1/search", json=body)
    [missing] = (await response.json())["error"]["details"]
    assert missing == {"shard": "content-uploads-1", "required_next_offset": 1, "next_offset": 0}
    body["timeout_ms"] = PATIENCE_MS
    waiting = asyncio.create_task(client.post("/v1/search", json=body))
    index.commit(1, index.text("u", "a blue coat"))
    assert (await waiting).status == 200


async def test_no_search_fails_while_generations_come_and_go(small_index: SmallIndex, client: Client) -> None:
    is_over = asyncio.Event()
    seen: list[int] = []

    async def ask() -> None:
        while not is_over.is_set():
            response = await client.post("/v1/search", json={"text": "red dress", "k": 1, "modality": "text"})
            answer = await response.json()
            assert response.status == 200, answer
            assert answer["results"]["text"]["hits"][0]["content_id"] == "t-red"
            seen.append(answer["snapshot"][SHARD]["next_offset"])

    clients = [asyncio.create_task(ask()) for _ in range(4)]
    for number in range(20):
        change = small_index.text(f"t-{number}", f"number {number}")
        next_offset = await asyncio.to_thread(small_index.commit, 0, change)
        body = {"text": "red", "min_offsets": {SHARD: next_offset}, "timeout_ms": PATIENCE_MS}
        assert (await client.post("/v1/search", json=body)).status == 200
        while next_offset not in seen:  # noqa: ASYNC110 (they really are answered from every generation)
            await asyncio.sleep(0.001)
    is_over.set()
    await asyncio.gather(*clients)


async def test_a_content_is_found_as_soon_as_its_commit_has_returned(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, reload_interval_seconds=3600.0)
    assert (await client.get("/v1/contents/t-new")).status == 404
    small_index.commit(0, small_index.text("t-new", "new"))
    assert (await client.get("/v1/contents/t-new")).status == 200


async def test_a_removed_content_is_found_no_more(small_index: SmallIndex, client: Client) -> None:
    next_offset = small_index.commit(0, small_index.removal("t-red"))
    body = {"text": "red dress", "min_offsets": {SHARD: next_offset}, "timeout_ms": PATIENCE_MS}
    hits = (await (await client.post("/v1/search", json=body)).json())["results"]["text"]["hits"]
    assert "t-red" not in [hit["content_id"] for hit in hits]
    assert (await client.get("/v1/contents/t-red")).status == 404


async def test_an_index_that_comes_later_is_served_without_a_restart(
    tmp_path: Path, start_service: StartService
) -> None:
    index = SmallIndex(tmp_path / "later")
    client = await start_service(index)
    before = await client.post("/v1/search", json={"text": "red"})
    assert (before.status, (await before.json())["error"]["code"]) == (503, "no_index")
    assert (await client.get("/readyz")).status == 503
    next_offset = index.create().commit(0, index.text("t", "a red dress"))
    await asyncio.wait_for(until_ready(client), PATIENCE_SECONDS)  # the index may be empty still
    demand = {"text": "red dress", "min_offsets": {f"{TOPIC}-0": next_offset}}
    after = await client.post("/v1/search", json=demand)
    assert (await after.json())["results"]["text"]["hits"][0]["content_id"] == "t"


async def until_ready(client: Client) -> None:
    while (await client.get("/readyz")).status != 200:  # noqa: ASYNC110 (a client cannot be told)
        await asyncio.sleep(0.01)


async def test_a_damaged_new_file_leaves_the_old_searcher_and_is_named(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, reload_interval_seconds=3600.0)
    assert client.app is not None
    served = client.app[INDEX_SWAP].pair.index
    await served.reload()
    small_index.commit(0, small_index.text("t-new", "new"))
    damaged = damage(small_index.newest_segment(0))
    with capture_logs() as logs:
        assert [await served.reload(), await served.reload()] == ["damaged", "damaged"]
    answer = await (await client.get("/v1/search", params={"q": "red dress"})).json()
    assert answer["results"]["text"]["hits"][0]["content_id"] == "t-red"
    assert answer["snapshot"][SHARD]["next_offset"] == 3
    [told] = [entry for entry in logs if entry["event"] == "reload failed"]  # once, not at every look
    assert str(damaged) in told["error"]
    metrics = metrics_of(client)
    assert 'cliptide_query_reloads_total{status="damaged"} 2.0' in metrics


async def test_a_damaged_shard_does_not_hold_back_the_others(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index)
    small_index.commit(0, small_index.text("t-new", "new"))
    damage(small_index.newest_segment(0))
    small_index.commit(1, small_index.text("u-new", "newer"))
    body = {"text": "newer", "min_offsets": {"content-uploads-1": 4}, "timeout_ms": PATIENCE_MS}
    answer = await (await client.post("/v1/search", json=body)).json()
    assert answer["results"]["text"]["hits"][0]["content_id"] == "u-new"


async def test_calls_that_come_while_a_reload_runs_share_the_next_one(tmp_path: Path) -> None:
    reader = SlowReader()
    served = ServedIndex(reader, Metrics(CollectorRegistry()))  # type: ignore[arg-type]
    first = asyncio.create_task(served.reload())
    assert await asyncio.to_thread(reader.has_begun.wait, PATIENCE_SECONDS)
    others = [asyncio.create_task(served.reload()) for _ in range(5)]
    await asyncio.sleep(0)
    reader.gate.set()
    await asyncio.gather(first, *others)
    assert reader.num_reloads == 2


class SlowReader:
    """Reloads only when the gate is open."""

    searcher = None
    index = None
    lease_failure = None

    def __init__(self) -> None:
        self.gate, self.has_begun = threading.Event(), threading.Event()
        self.num_reloads = 0

    def reload(self) -> bool:
        self.num_reloads += 1
        self.has_begun.set()
        assert self.gate.wait(PATIENCE_SECONDS)
        return False


def damage(file: Path) -> Path:
    """Flip one bit in the file of a segment."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    return file
