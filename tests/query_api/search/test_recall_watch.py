"""Some live queries are answered again, exactly, and the share of true hits that was found is exported."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry

from clip_index.content import Delta, Embeddings
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import InRange, RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.vectors.vector_file import write_fastest
from clip_index.writing.shard_writer import WriterSettings
from fakes.hash_encoder import draw_picture
from fakes.shards import content, create_index, fingerprint, take_over, unit_vectors
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking_requests import RankingRequest, build_rated_requests
from query_api.search.recall_watch import RECALL_WATCH, RecallSettings, RecallWatch
from query_api.search.request.models import SearchRequest
from query_api.telemetry.metrics import METRICS, Metrics
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

DIMENSION, NUM_ROWS, NUM_QUERIES, K = 32, 12_000, 60, 10
EVERY = RecallSettings(every=1, share=1.0)
MV = "/mv_retrieval/v0.1"


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Embeddings without clusters, in lists of which queries scan too few; some rows are dead."""
    root: Path = tmp_path_factory.mktemp("too-few")
    index = create_index(root, fingerprint=fingerprint(dimension=DIMENSION))
    too_few = partial(write_fastest, target_recall=0.5)
    writer = take_over(index, settings=WriterSettings(write_sealed=too_few))
    rows = unit_vectors(1, NUM_ROWS, DIMENSION)
    changes = [
        content(str(n), n, embeddings=rows[n][None], metadata={"n": float(n % 10)}) for n in range(NUM_ROWS)
    ]
    writer.add(Delta(0, NUM_ROWS, changes))
    writer.commit()
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def queries(num_queries: int = NUM_QUERIES) -> Embeddings:
    return unit_vectors(2, num_queries, DIMENSION)


def true_scores() -> np.ndarray:
    """The offline answer, from the stored numbers: (queries, rows)."""
    rows = unit_vectors(1, NUM_ROWS, DIMENSION).astype(np.float16).astype(np.float32)
    scores: np.ndarray = queries() @ rows.T
    return scores


def offline_recall(searcher: Searcher) -> float:
    exact = np.argsort(-true_scores(), axis=1)[:, :K]
    answers = searcher.search(queries(), k=K, modality="image")
    found = [[int(hit.content_id) for hit in hits] for hits in answers]
    return sum(len(set(a) & set(b)) for a, b in zip(found, exact.tolist(), strict=True)) / exact.size


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    value: float | None = metrics.registry.get_sample_value(name, labels)
    return value


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 (a thread changes it)
        await asyncio.sleep(0.001)


async def compare(searcher: Searcher, asked: Sequence[QueryEmbedding], request: SearchRequest) -> Metrics:
    """Offer the queries one after the other, so that none is displaced."""
    metrics = Metrics(CollectorRegistry())
    watch = RecallWatch(metrics, EVERY)
    async with watch.watching():
        for query in asked:
            watch.offer(searcher, partial(build_rated_requests, query, request))
            await until(lambda: not watch._waiting and watch.job._turned_at is None)
    return metrics


def pictures(**changes: Any) -> SearchRequest:
    return SearchRequest.model_validate({"text": "any", "modality": "image", "k": K, **changes})


def one_query() -> Callable[[], Sequence[RankingRequest]]:
    return partial(build_rated_requests, QueryEmbedding(queries(1)[0]), pictures())


async def test_the_gauge_is_the_offline_recall_of_lists_that_are_too_few(searcher: Searcher) -> None:
    offline = offline_recall(searcher)
    assert offline < 0.9
    metrics = await compare(searcher, [QueryEmbedding(query) for query in queries()], pictures())
    gauge = sample(metrics, "cliptide_query_recall_at_k", modality="image")
    assert gauge == pytest.approx(offline, abs=0.02)
    counts = [
        sample(metrics, "cliptide_query_recall_hits_total", modality="image", status=status)
        for status in ("found", "missed")
    ]
    assert sum(filter(None, counts)) == NUM_QUERIES * K
    assert sample(metrics, "cliptide_query_recall_queries_total", modality="image") == NUM_QUERIES
    assert sample(metrics, "cliptide_query_recall_queries_total", modality="text") is None


async def test_no_searcher_is_kept_once_its_query_is_compared(searcher: Searcher) -> None:
    watch = RecallWatch(Metrics(CollectorRegistry()), EVERY)
    other = Searcher(searcher.shard_views, DIMENSION)
    kept = weakref.ref(other)
    async with watch.watching():
        watch.offer(other, one_query())
        del other
        await asyncio.wait_for(until(lambda: kept() is None), 20)


def test_an_exact_search_finds_what_a_scan_finds(searcher: Searcher) -> None:
    rest: list[float] = []
    answers = searcher.search_exactly(queries(), k=K, modality="image", after_each=rest.append)
    found = [[int(hit.content_id) for hit in hits] for hits in answers]
    assert found == np.argsort(-true_scores(), axis=1)[:, :K].tolist()
    assert len(rest) == 1  # one segment: the parts are where the search may rest


def test_an_exact_search_keeps_the_filter(searcher: Searcher) -> None:
    below_three = RowFilter(must=(InRange("metadata.n", lt=3.0),))
    answers = searcher.search_exactly(
        queries(), k=K, modality="image", row_filter=below_three, after_each=lambda _: None
    )
    found = [[int(hit.content_id) for hit in hits] for hits in answers]
    scores = true_scores()
    scores[:, np.arange(NUM_ROWS) % 10 >= 3] = -2
    assert found == np.argsort(-scores, axis=1)[:, :K].tolist()


async def test_a_filter_and_a_least_score_count_only_what_they_let_pass(searcher: Searcher) -> None:
    wanted = {"must": [{"field": "metadata.n", "lt": 3}]}
    asked = [QueryEmbedding(query) for query in queries(5)]
    metrics = await compare(searcher, asked, pictures(filter=wanted, min_score=0.99))
    assert sample(metrics, "cliptide_query_recall_queries_total", modality="image") is None
    metrics = await compare(searcher, asked, pictures(filter=wanted, min_score=0.3))
    scores = true_scores()[:5]
    scores[:, np.arange(NUM_ROWS) % 10 >= 3] = -2
    num_wanted = np.minimum((scores >= 0.3).sum(axis=1), K).sum()
    counts = [
        sample(metrics, "cliptide_query_recall_hits_total", modality="image", status=status)
        for status in ("found", "missed")
    ]
    assert sum(filter(None, counts)) == num_wanted


def test_a_text_of_several_windows_is_found_exactly_by_its_best_one(tmp_path: Path) -> None:
    index = create_index(tmp_path, fingerprint=fingerprint(dimension=DIMENSION))
    too_few = partial(write_fastest, target_recall=0.5)
    writer = take_over(index, settings=WriterSettings(write_sealed=too_few))
    rows = unit_vectors(3, 6_000, DIMENSION).reshape(2_000, 3, DIMENSION)
    writer.add(
        Delta(0, 2_000, [content(str(n), n, modality="text", embeddings=rows[n]) for n in range(2_000)])
    )
    writer.commit()
    reader = IndexReader(tmp_path)
    reader.reload()
    assert reader.searcher is not None
    answers = reader.searcher.search_exactly(queries(), k=K, modality="text", after_each=lambda _: None)
    stored = rows.astype(np.float16).astype(np.float32)
    best = np.einsum("qd,nwd->qnw", queries(), stored).max(axis=2)
    found = [[int(hit.content_id) for hit in hits] for hits in answers]
    assert found == np.argsort(-best, axis=1)[:, :K].tolist()


async def test_the_thread_rests_as_its_share_says(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each part it is told what it cost, and it rests 24 times as long."""
    metrics, rests = Metrics(CollectorRegistry()), []
    watch = RecallWatch(metrics, RecallSettings(every=1))
    monkeypatch.setattr(watch.job, "pause", rests.append)
    costs: list[float] = []
    search_exactly = searcher.search_exactly

    def watched(*arguments: Any, after_each: Callable[[float], object], **options: Any) -> Any:
        def note(seconds: float) -> None:
            costs.append(seconds)
            after_each(seconds)

        return search_exactly(*arguments, after_each=note, **options)

    monkeypatch.setattr(searcher, "search_exactly", watched)
    async with watch.watching():
        watch.offer(searcher, one_query())
        await until(lambda: len(rests) == 3)  # after building, after the search, after its only part
    assert costs[0] > 0
    assert rests[2] == pytest.approx(24 * costs[0])


async def test_what_cannot_be_compared_ends_nothing(searcher: Searcher) -> None:
    metrics = Metrics(CollectorRegistry())
    watch = RecallWatch(metrics, EVERY)

    class Broken:
        def search(self, *_: Any, **__: Any) -> None:
            raise OSError("the disk does not answer")

    async with watch.watching():
        watch.offer(Broken(), one_query())  # type: ignore[arg-type]
        watch.offer(searcher, one_query())
        await until(
            lambda: sample(metrics, "cliptide_query_recall_queries_total", modality="image") is not None
        )
        assert watch.job.problem is None


def test_when_too_many_are_drawn_the_latest_are_kept_and_few_of_them() -> None:
    watch = RecallWatch(Metrics(CollectorRegistry()), EVERY)
    for number in range(50):
        watch.offer(number, one_query())  # type: ignore[arg-type]
    assert [one.searcher for one in watch._waiting] == [46, 47, 48, 49]


def test_one_query_of_as_many_as_the_setting_says_is_drawn() -> None:
    watch = RecallWatch(Metrics(CollectorRegistry()), RecallSettings(every=500))
    drawn = []
    watch._waiting = drawn  # type: ignore[assignment]
    for _ in range(100_000):
        watch.offer(None, one_query())  # type: ignore[arg-type]
    assert 120 < len(drawn) < 280  # 200 expected; six standard deviations


async def test_every_kind_of_search_is_sampled(start_service: StartService, small_index: SmallIndex) -> None:
    client: TestClient[Any, Any] = await start_service(small_index, recall=EVERY)
    calls: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/search", {"json": {"text": "a red dress", "modality": "text"}}, 1),
        ("/v1/search", {"json": {"text": "a red dress", "modality": "text", "paged": True}}, 1),
        ("/v1/search", {"json": {"content_id": "t-red", "modality": "text"}}, 1),
        ("/v1/search/batch", {"json": {"queries": [{"text": "a coat", "modality": "text"}]}}, 1),
        ("/v1/recommend", {"json": {"positive": [{"text": "a coat"}], "modality": "text"}}, 1),
        ("/v1/recommend", {"json": {"owner_id": "ann", "modality": "text"}}, 2),  # an interest, and around it
        (f"{MV}/retrieve_contents", {"params": {"type": "text"}, "data": b"a coat"}, 1),
        (f"{MV}/retrieve_contents", {"params": {"type": "image"}, "data": draw_picture(1)}, 1),
        (f"{MV}/recommend_contents", {"params": {"user": "ann"}}, 2),
    ]
    metrics = client.app[METRICS]
    counted, number = partial(sample, metrics, "cliptide_query_recall_queries_total", modality="text"), 0
    for path, call, num_rankings in calls:
        assert (await client.post(path, **call)).status == 200
        number += num_rankings
        await until(lambda number=number: counted() == number)
    assert sample(metrics, "cliptide_query_recall_at_k", modality="text") == 1.0


async def test_nothing_is_sampled_when_the_setting_is_zero(
    start_service: StartService, small_index: SmallIndex
) -> None:
    client: TestClient[Any, Any] = await start_service(small_index, recall=RecallSettings(every=0))
    assert (await client.post("/v1/search", json={"text": "a red dress"})).status == 200
    names = [metric.name for metric in client.app[METRICS].registry.collect() for _ in metric.samples]
    assert not [name for name in names if "recall" in name]


async def test_the_calls_of_an_earlier_image_search_are_sampled(
    start_service: StartService, small_index: SmallIndex
) -> None:
    client: TestClient[Any, Any] = await start_service(small_index, recall=EVERY)
    counted = partial(sample, client.app[METRICS], "cliptide_query_recall_queries_total", modality="image")
    for number, path in enumerate(("/text_url", "/display_text"), start=1):
        assert (await client.post(path, params={"text_query": "red"})).status == 200
        await until(lambda number=number: counted() == number)
    for number, path in enumerate(("/image_url", "/display_image"), start=3):
        form = FormData(default_to_multipart=True)
        form.add_field("image_file", draw_picture(1), filename="f.png", content_type="image/png")
        assert (await client.post(path, data=form)).status == 200
        await until(lambda number=number: counted() == number)


async def test_a_request_that_is_refused_is_not_sampled(
    start_service: StartService, small_index: SmallIndex
) -> None:
    """Its rankings could not be built in the background either, and each would be a line in the log."""
    client: TestClient[Any, Any] = await start_service(small_index, recall=EVERY)
    body = {"positive": [{"text": "red"}], "negative": [{"text": "red", "weight": 2.0}]}
    assert (await client.post("/v1/recommend", json=body)).status == 422
    assert not client.app[RECALL_WATCH]._waiting


class Costly:
    """A snapshot whose calls cost known times of a processor that nothing else uses."""

    def __init__(self, cpu: list[float], seconds: float) -> None:
        self._cpu, self._seconds = cpu, seconds

    def spend(self) -> None:
        self._cpu[0] += self._seconds

    def search(self, queries: Embeddings, **_: Any) -> list[list[Any]]:
        self.spend()
        return [[] for _ in queries]

    def search_exactly(
        self, queries: Embeddings, *, after_each: Callable[[float], object], **_: Any
    ) -> list[list[Any]]:
        for _ in range(5):  # segments
            self.spend()
            after_each(self._seconds)
        return [[] for _ in queries]


@pytest.mark.parametrize("seconds", [0.001, 0.2, 30.0])
async def test_whatever_is_asked_takes_at_most_a_twenty_fifth_of_a_processor(
    monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Searches, building what an owner's recommendation asks for, and many rankings of one query."""
    cpu, rested = [0.0], [0.0]
    watch = RecallWatch(Metrics(CollectorRegistry()), RecallSettings(every=1), clock=lambda: cpu[0])
    snapshot: Any = Costly(cpu, seconds)

    def build() -> list[RankingRequest]:
        snapshot.spend()
        return [RankingRequest(QueryEmbedding(query), "image", K) for query in queries(7)]

    def rest(pause: float) -> None:
        rested[0] += pause
        assert cpu[0] <= (cpu[0] + rested[0]) / 25 * 1.0001

    monkeypatch.setattr(watch.job, "pause", rest)
    async with watch.watching():
        for _ in range(3):
            watch.offer(snapshot, build)
            await until(lambda: not watch._waiting and watch.job._turned_at is None)
    assert cpu[0] == pytest.approx(3 * seconds * (1 + 7 * 6))


async def test_what_was_asked_of_a_former_index_does_not_count_for_the_next(searcher: Searcher) -> None:
    """A comparison may be under way when another index begins to serve."""
    metrics = Metrics(CollectorRegistry())
    watch = RecallWatch(metrics, EVERY)

    def build() -> Sequence[RankingRequest]:
        watch.begin_again()
        return one_query()()

    async with watch.watching():
        watch.offer(searcher, build)
        await until(lambda: not watch._waiting and watch.job._turned_at is None)
        await asyncio.sleep(0)
        assert sample(metrics, "cliptide_query_recall_queries_total", modality="image") is None
        watch.offer(searcher, one_query())
        await until(
            lambda: sample(metrics, "cliptide_query_recall_queries_total", modality="image") is not None
        )
