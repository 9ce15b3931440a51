"""What the machinery around the service is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp.test_utils import TestClient
from structlog.testing import capture_logs

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Prepared
from fakes.hash_encoder import HashEncoder
from query_api.swap.index_swap import INDEX_SWAP
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService, metrics_of
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]


class SickEncoder(HashEncoder):
    """Prepares, but every embedding is NaN."""

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        return [np.full((1, self.dimension), np.nan, np.float32) for _ in prepared]


class BrokenEncoder(HashEncoder):
    """Prepares, but cannot encode."""

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        raise RuntimeError("weights are gone")


async def test_a_service_with_an_index_is_alive_and_ready(client: Client) -> None:
    for path in ("/livez", "/readyz"):
        response = await client.get(path)
        assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_without_an_index_it_is_alive_but_not_ready(
    tmp_path: Path, start_service: StartService
) -> None:
    client = await start_service(SmallIndex(tmp_path / "none"))
    assert (await client.get("/livez")).status == 200
    response = await client.get("/readyz")
    assert (response.status, (await response.json())["error"]["code"]) == (503, "not_ready")
    assert str(tmp_path) not in await response.text(), "everybody may ask"
    for path in ("/v1/index", "/v1/contents/x", "/v1/search?q=a"):
        response = await client.get(path)
        assert (response.status, (await response.json())["error"]["code"]) == (503, "no_index")
        assert response.headers["Retry-After"] == "1"


async def test_unsound_embeddings_are_not_ready(small_index: SmallIndex, start_service: StartService) -> None:
    client = await start_service(small_index, encoder=SickEncoder())
    response = await client.get("/readyz")
    assert (response.status, (await response.json())["error"]["code"]) == (503, "not_ready")


class CountingEncoder(HashEncoder):
    """Counts what it encodes."""

    num_encoded = 0

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        CountingEncoder.num_encoded += len(prepared)
        return super().encode(prepared)


async def test_whoever_asks_often_does_not_keep_the_encoder_busy(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, encoder=CountingEncoder())
    began = time.monotonic()
    answers = await asyncio.gather(*(client.get("/readyz") for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert CountingEncoder.num_encoded <= 2 * (1 + int(time.monotonic() - began))


async def test_a_fault_of_the_process_is_a_500_that_tells_nothing_of_it(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, encoder=BrokenEncoder())
    with capture_logs() as logs:
        response = await client.post("/v1/search", json={"text": "red"})
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (500, "internal")
    assert "weights" not in error["message"]
    assert [entry["request_id"] for entry in logs if entry["event"] == "request failed"] == [
        error["request_id"]
    ]
    assert (await client.get("/livez")).status == 200


async def test_an_ended_loop_is_red(client: Client) -> None:
    assert client.app is not None
    pair = client.app[INDEX_SWAP].pair
    for part, code in ((pair.encoder, "encoder_stopped"), (pair.index, "reload_stopped")):
        task = part._task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        response = await client.get("/livez")
        assert (response.status, (await response.json())["error"]["code"]) == (503, code)


async def test_the_metrics_tell_requests_stages_generations_and_reloads(client: Client) -> None:
    await asyncio.wait_for(until_looked_for_news(client), PATIENCE_SECONDS)
    await client.post("/v1/search", json={"text": "red"})
    await client.post("/v1/search", json={"text": "red"})
    await client.get("/no/such/route")
    lines = metrics_of(client).splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert values['cliptide_query_requests_total{method="POST",route="/v1/search",status="200"}'] == "2.0"
    assert values['cliptide_query_requests_total{method="GET",route="unmatched",status="404"}'] == "1.0"
    assert values['cliptide_query_stage_seconds_count{stage="search"}'] == "2.0"
    assert values['cliptide_query_text_cache_lookups_total{status="hit"}'] == "1.0"
    assert values['cliptide_query_text_cache_lookups_total{status="miss"}'] == "1.0"
    assert values['cliptide_query_searcher_next_offset{shard="content-uploads-0"}'] == "3.0"
    assert float(values['cliptide_query_searcher_generation{shard="content-uploads-0"}']) >= 1
    assert float(values['cliptide_query_watermark_age_seconds{shard="content-uploads-0"}']) > 1e6
    assert float(values['cliptide_query_reloads_total{status="unchanged"}']) >= 1


async def until_looked_for_news(client: Client) -> None:
    """The reload loop has looked once, and brought the ages up to date."""
    while "cliptide_query_watermark_age_seconds{" not in metrics_of(client):  # noqa: ASYNC110 (it tells nobody)
        await asyncio.sleep(0.01)
