"""Percentiles in answers: how a score compares with what nonsense reaches."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Prepared
from clip_index.searching.searcher import Searcher
from clip_index.views.snapshot import ShardView
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.encoding.query_encoder import QueryEncoder, QueryEncoderSettings
from query_api.percentiles.background_queries import read_phrases
from query_api.percentiles.renewal import (
    BEFORE_SERVING,
    WHILE_SERVING,
    PercentileScales,
    PhrasePace,
    changed_share,
)
from query_api.percentiles.scale import PercentileScale
from query_api.serving.engine import ShardSnapshot, Snapshot
from query_api.serving.served_index import ServedIndex
from query_api.serving.workers import Workers
from query_api.telemetry.metrics import Metrics
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]
DEADLINE_SECONDS = 60.0


async def post(client: Client, **body: Any) -> tuple[int, dict[str, Any]]:
    response = await client.post("/v1/search", json=body)
    return response.status, await response.json()


async def until(is_met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_met():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def hits(answer: dict[str, Any], modality: str = "text") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer["results"][modality]["hits"]
    return found


@pytest.fixture
async def client(small_index: SmallIndex, start_service: StartService) -> Client:
    """A service that has built its scales."""
    small_index.commit(0, *(small_index.text(f"n-{n}", f"note number {n}") for n in range(20)))
    client = await start_service(small_index, has_percentiles=True)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (await post(client, text="red", min_percentile=0.5))[0] == 503:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    return client


async def test_hits_have_percentiles_that_fall_with_their_scores(client: Client) -> None:
    status, answer = await post(client, text="a red dress", k=25)
    assert status == 200
    percentiles = [hit["percentile"] for hit in hits(answer)]
    assert percentiles == sorted(percentiles, reverse=True)
    assert percentiles[0] == 1.0
    assert percentiles[-1] < 0.5
    assert len(hits(answer, "image")) == 3
    assert all("percentile" in hit for hit in hits(answer, "image"))


async def test_a_least_percentile_leaves_out_what_nonsense_reaches(client: Client) -> None:
    _, sense = await post(client, text="a red dress", min_percentile=0.9, modality="text")
    assert hits(sense)[0]["content_id"] == "t-red"
    assert all(hit["percentile"] >= 0.9 for hit in hits(sense))
    phrase = sorted(read_phrases(), key=len)[128]
    _, nonsense = await post(client, text=phrase, min_percentile=1.0, modality="text")
    assert hits(nonsense) == []


async def test_the_greater_of_both_bounds_holds(client: Client) -> None:
    _, answer = await post(client, text="a red dress", min_percentile=0.1, min_score=0.99)
    assert [hit["content_id"] for hit in hits(answer)] == ["t-red"]


async def test_a_picture_is_compared_with_the_indexs_own_pictures(client: Client) -> None:
    image = base64.b64encode(draw_picture(2)).decode()
    _, answer = await post(client, image=image, modality="image")
    best = hits(answer, "image")[0]
    assert (best["content_id"], best["percentile"]) == ("p-2", 1.0)  # its copy: nearer than any other pair
    _, like = await post(client, content_id="p-2", modality="image")
    assert all(hit["percentile"] < 1.0 for hit in hits(like, "image"))


async def test_a_query_of_no_one_modality_has_no_percentile(client: Client) -> None:
    for body in ({"vector": [1.0] * 64}, {"terms": [{"text": "red"}, {"text": "blue"}]}):
        _, answer = await post(client, **body)
        assert "percentile" not in hits(answer)[0]
        status, refusal = await post(client, **body, min_percentile=0.5)
        assert (status, refusal["error"]["code"]) == (422, "invalid_value")


async def test_pages_keep_the_least_percentile(client: Client) -> None:
    body = {"text": "a note of number 7", "min_percentile": 0.5, "modality": "text"}
    _, whole = await post(client, **body, k=100)
    _, page = await post(client, **body, k=1, paged=True)
    found = hits(page)
    while page["next_cursor"] is not None:
        _, page = await post(client, cursor=page["next_cursor"], k=3)
        found += hits(page)
    assert found == hits(whole)
    assert 1 < len(found) < 23


async def test_modalities_are_mixed_by_percentile_and_what_lies_beyond_it(client: Client) -> None:
    status, apart = await post(client, text="a red dress", k=100)
    assert status == 200
    status, mixed = await post(client, text="a red dress", k=12, by_modality=False)
    assert (status, mixed["results"].keys()) == (200, {"all"})
    together = hits(mixed, "all")
    assert len(together) == 12
    assert together[0]["content_id"] == "t-red"
    percentiles = [hit["percentile"] for hit in together]
    assert percentiles == sorted(percentiles, reverse=True)
    every = sorted((h["percentile"] for m in ("text", "image") for h in hits(apart, m)), reverse=True)
    assert percentiles == every[:12]
    for modality in ("text", "image"):
        order = [hit["content_id"] for hit in together if hit["modality"] == modality]
        assert order == [hit["content_id"] for hit in hits(apart, modality)][: len(order)]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"vector": [1.0] * 64}, id="numbers"),
        pytest.param({"terms": [{"text": "red"}]}, id="a combination"),
        pytest.param({"text": "red", "paged": True}, id="pages"),
    ],
)
async def test_what_cannot_be_mixed_is_refused(client: Client, body: dict[str, Any]) -> None:
    status, answer = await post(client, by_modality=False, **body)
    assert (status, answer["error"]["code"]) == (422, "invalid_value")


async def test_batches_are_rated_too(client: Client) -> None:
    _, answer = await post(client, queries=[{"text": "red"}, {"text": "red", "min_percentile": 1.0}])
    assert "percentile" in hits(answer["answers"][0])[0]
    assert all(hit["percentile"] == 1.0 for hit in hits(answer["answers"][1]))


async def test_a_service_that_rates_nothing_says_so(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, has_percentiles=False)
    status, answer = await post(client, text="red", min_percentile=0.5)
    assert (status, answer["error"]["code"]) == (422, "percentiles_off")
    assert "percentile" not in hits((await post(client, text="red"))[1])[0]


async def test_scales_are_renewed_after_the_index_has_changed(tmp_path: Path) -> None:
    index = SmallIndex(tmp_path / "index").create()
    index.commit(0, index.text("t-red", "a red dress"))
    metrics = Metrics(CollectorRegistry())
    served = ServedIndex(index.open_reader(), metrics)
    with Workers(1) as workers:
        encoder = QueryEncoder(HashEncoder(), workers, metrics, QueryEncoderSettings())
        scales = PercentileScales(served, encoder, min_pause_seconds=0.01)
        assert scales.find("text") is None
        async with encoder.running(), served.reloading(0.01), scales.renewing():
            await until(lambda: (scales.find("text") or {}).keys() == {"text"})
            assert scales.find("image") == {}  # there is no picture to compare with
            index.commit(1, index.image("p-1", draw_picture(1)), index.image("p-2", draw_picture(2)))
            await until(lambda: (scales.find("image") or {}).keys() == {"text", "image"})


def shown(**shards: tuple[int, int]) -> Snapshot:
    """A snapshot of shards with a next offset and a number of texts each."""
    return Searcher(
        [
            ShardView(name, ShardSnapshot(1, 0, next_offset, None, {"text": num_texts}))
            for name, (next_offset, num_texts) in shards.items()
        ],
        dimension=4,
    )


@pytest.mark.parametrize(
    ("searcher", "share"),
    [
        (shown(a=(100, 100), b=(100, 100)), 0.0),
        (shown(a=(104, 100), b=(106, 100)), 0.05),
        (shown(a=(900, 0), b=(100, 100)), 1.0),
        (shown(a=(100, 0), b=(100, 0)), 0.0),
        (shown(a=(99, 99), b=(100, 100)), 1.0),
        (shown(a=(100, 100), c=(100, 100)), 1.0),
    ],
    ids=["the same", "some uploads", "deletes", "empty", "an earlier generation", "another shard"],
)
def test_the_changed_share_counts_uploads_and_deletes(searcher: Snapshot, share: float) -> None:
    assert changed_share(shown(a=(100, 100), b=(100, 100)), searcher) == share


async def test_scales_of_an_index_that_has_hardly_changed_are_not_renewed(tmp_path: Path) -> None:
    """Where uploads come all the time, the renewals took a 25th of a processor, for nearly equal scales."""
    index = SmallIndex(tmp_path / "index").create()
    index.commit(0, *(index.text(f"t-{number}", f"dress {number}") for number in range(40)))
    metrics = Metrics(CollectorRegistry())
    served = ServedIndex(index.open_reader(), metrics)
    with Workers(1) as workers:
        encoder = QueryEncoder(HashEncoder(), workers, metrics, QueryEncoderSettings())
        scales = PercentileScales(served, encoder, min_pause_seconds=0.001)
        async with encoder.running(), served.reloading(0.01), scales.renewing():
            await until(lambda: scales.find("text") is not None)
            built, before = scales.find("text"), served.searcher
            index.commit(0, index.text("t-a", "a red dress"))
            await until(lambda: served.searcher is not before)
            renewal = asyncio.create_task(scales._changed_searcher(before))
            _, waiting = await asyncio.wait([renewal], timeout=0.1)
            assert waiting
            assert scales.find("text") is built
            index.commit(0, index.text("t-b", "a blue dress"), index.text("t-c", "a green dress"))
            assert (await renewal).shards == served.searcher.shards
            await until(lambda: scales.find("text") is not built)


class CountingEncoder(HashEncoder):
    """Remembers how many contents each batch had."""

    sizes: ClassVar[list[int]] = []

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        self.sizes.append(len(prepared))
        return super().encode(prepared)


@pytest.mark.parametrize("pace", [WHILE_SERVING, BEFORE_SERVING], ids=["while serving", "before"])
async def test_phrases_are_encoded_in_batches_because_one_by_one_they_cost_several_times_as_much(
    pace: PhrasePace, tmp_path: Path
) -> None:
    index = SmallIndex(tmp_path / "index").create()
    index.commit(0, index.text("t-red", "a red dress"))
    metrics = Metrics(CollectorRegistry())
    CountingEncoder.sizes.clear()
    served = ServedIndex(index.open_reader(), metrics)
    with Workers(1) as workers:
        encoder = QueryEncoder(CountingEncoder(), workers, metrics, QueryEncoderSettings())
        scales = PercentileScales(served, encoder, pace=pace)
        async with encoder.running(), served.reloading(0.01), scales.renewing():
            await until(lambda: scales.find("text") is not None)
    assert sum(CountingEncoder.sizes) == len(read_phrases())
    assert set(CountingEncoder.sizes) == {pace.at_once}


class FaultyAtFirst(HashEncoder):
    """The first batch meets an error that no rule expects."""

    num_faults = 0

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        if FaultyAtFirst.num_faults == 0:
            FaultyAtFirst.num_faults = 1
            raise RuntimeError("no rule expects this")
        return super().encode(prepared)


async def test_an_unexpected_error_does_not_end_the_renewal(tmp_path: Path) -> None:
    index = SmallIndex(tmp_path / "index").create()
    index.commit(0, index.text("t-red", "a red dress"))
    metrics = Metrics(CollectorRegistry())
    served = ServedIndex(index.open_reader(), metrics)
    with Workers(1) as workers:
        encoder = QueryEncoder(FaultyAtFirst(), workers, metrics, QueryEncoderSettings())
        scales = PercentileScales(served, encoder, min_pause_seconds=0.01)
        async with encoder.running(), served.reloading(0.01), scales.renewing():
            await until(lambda: scales.find("text") is not None)
    assert FaultyAtFirst.num_faults == 1


def test_a_score_has_the_percentile_exactly_from_its_least_score_on() -> None:
    rng = np.random.default_rng(0)
    scale = PercentileScale(
        rng.standard_normal(8).astype(np.float32) / 10, np.sort(rng.uniform(0.1, 0.5, 256))
    )
    query = np.eye(8, dtype=np.float32)[0]
    for wanted in (0.004, 0.25, 0.9, 1.0):
        least = scale.least_score(query, wanted)
        below = float(np.nextafter(least, -1))
        [has, has_not] = scale.percentiles(query, [least, below])
        assert has >= wanted > has_not
    assert scale.least_score(query, 0.0) == -np.inf
