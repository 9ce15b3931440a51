"""Searches that come while others run are made together, and nobody can tell from the answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_index.searching.searcher import Searcher
from clip_index.views.snapshot import Hit
from fakes.hash_encoder import HashEncoder
from query_api.contract.filters import Filter
from query_api.errors import ApiError
from query_api.search import retrieval
from query_api.search.ranking import ranking
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.request.options import RatedOptions
from query_api.search.shared_searches import MAX_K, MAX_TOGETHER, SharedSearches, can_share
from query_api.serving.workers import Workers
from query_api.telemetry.stages import Stages
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.small_index import SmallIndex

TEXTS = [f"thing number {number}" for number in range(8)]


class GatedSearcher(Searcher):
    """Waits in each search until the gate is open; remembers how many queries came together."""

    def __init__(self, searcher: Searcher) -> None:
        super().__init__(searcher.shard_views, searcher.dimension)
        self.gate, self.begun = threading.Event(), threading.Semaphore(0)
        self.sizes: list[int] = []
        self.fails: Callable[[int], bool] = lambda num_queries: False

    def search(self, queries: Any, **options: Any) -> list[list[Hit]]:
        self.sizes.append(len(queries))
        self.begun.release()
        assert self.gate.wait(PATIENCE_SECONDS)
        if self.fails(len(queries)):
            raise ArithmeticError("cannot be searched")
        return super().search(queries, **options)


@pytest.fixture
def searcher(tmp_path: Path) -> GatedSearcher:
    index = SmallIndex(tmp_path / "index").create()
    for number, text in enumerate(TEXTS):
        index.commit(number % 2, index.text(f"t-{number}", text))
    reader = index.open_reader()
    reader.reload()
    assert reader.searcher is not None
    return GatedSearcher(reader.searcher)


def query_for(text: str) -> QueryEmbedding:
    encoder = HashEncoder()
    [embedding] = encoder.encode([encoder.prepare_text(text)])
    return QueryEmbedding(np.asarray(embedding[0]), modality="text")


def options(**fields: Any) -> RatedOptions:
    return RatedOptions(modality="text", **fields)


def ask(searches: SharedSearches, searcher: Searcher, text: str, **fields: Any) -> asyncio.Task[bytes]:
    return asyncio.create_task(
        searches.search(searcher, query_for(text), options(**fields), Stages()), name=text
    )


async def ask_each(
    searches: SharedSearches, searcher: GatedSearcher, texts: Sequence[str], **fields: Any
) -> list[asyncio.Task[bytes]]:
    """All have asked, and the first search has begun."""
    asked = [ask(searches, searcher, text, **fields) for text in texts]
    await until_begun(searcher)
    return asked


async def until_begun(searcher: GatedSearcher, number: int = 1) -> None:
    """Wait until so many more searches are under way; whatever can run on the event loop has run by then."""
    for _ in range(number):
        assert await asyncio.to_thread(searcher.begun.acquire, timeout=PATIENCE_SECONDS)


def hits(answer: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(answer)["results"]["text"]["hits"]
    return found


async def test_what_comes_while_a_search_runs_goes_together(searcher: GatedSearcher) -> None:
    with Workers(2) as workers:
        asked = await ask_each(SharedSearches(workers, 1), searcher, TEXTS)
        searcher.gate.set()
        await asyncio.gather(*asked)
    assert searcher.sizes == [1, 7]


async def test_it_is_shared_out_among_the_calls_that_may_run_at_once(searcher: GatedSearcher) -> None:
    with Workers(3) as workers:
        asked = await ask_each(SharedSearches(workers, 2, short_seconds=0.0), searcher, TEXTS)
        await until_begun(searcher)  # the second
        searcher.gate.set()
        await asyncio.gather(*asked)
    assert searcher.sizes[:2] == [1, 1]
    assert sorted(searcher.sizes[2:]) == [1, 2, 3]  # half of the six that waited, and so on


async def test_short_searches_leave_a_core_to_the_event_loop(searcher: GatedSearcher) -> None:
    with Workers(3) as workers:
        searches = SharedSearches(workers, 2, short_seconds=3600.0, patience_seconds=3600.0)
        searcher.gate.set()
        await ask(searches, searcher, TEXTS[0])
        searcher.gate.clear()
        asked = [ask(searches, searcher, text) for text in TEXTS[1:]]
        await until_begun(searcher, 2)  # the one of before, and one that waits at the gate
        searcher.gate.set()
        await asyncio.gather(*asked)
    assert searcher.sizes == [1, 1, 6]


async def test_a_call_that_hangs_after_short_searches_does_not_keep_the_others_waiting(
    searcher: GatedSearcher,
) -> None:
    other = GatedSearcher(searcher)
    other.gate.set()
    with Workers(3) as workers:
        searches = SharedSearches(workers, 2, short_seconds=3600.0, patience_seconds=0.01)
        await ask(searches, other, TEXTS[0])
        hangs = ask(searches, searcher, TEXTS[0])
        await until_begun(searcher)
        waiting = [ask(searches, other, text) for text in TEXTS[1:]]
        _, left = await asyncio.wait(waiting, timeout=PATIENCE_SECONDS)
        searcher.gate.set()
        await asyncio.gather(hangs, *waiting)
    assert not left


async def test_searches_that_wait_for_a_disk_are_not_short(searcher: GatedSearcher) -> None:
    with Workers(3) as workers:
        searches = SharedSearches(workers, 2, short_seconds=0.02, patience_seconds=3600.0)
        first = ask(searches, searcher, TEXTS[0])
        await until_begun(searcher)
        await asyncio.sleep(0.25)  # more than ten times as long as a short search takes
        searcher.gate.set()
        await first
        searcher.gate.clear()
        asked = [ask(searches, searcher, text) for text in TEXTS[1:]]
        await until_begun(searcher, 2)  # both wait at the gate
        searcher.gate.set()
        await asyncio.gather(*asked)


async def test_as_many_go_together_as_are_bounded(searcher: GatedSearcher) -> None:
    with Workers(1) as workers:
        texts = [f"text {number}" for number in range(2 * MAX_TOGETHER + 1)]
        asked = await ask_each(SharedSearches(workers, 1), searcher, texts)
        searcher.gate.set()
        await asyncio.gather(*asked)
    assert searcher.sizes == [1, MAX_TOGETHER, MAX_TOGETHER]


async def test_each_gets_the_hits_that_it_would_get_alone(searcher: GatedSearcher) -> None:
    with Workers(1) as workers:
        asked = await ask_each(SharedSearches(workers, 1), searcher, TEXTS, k=3)
        searcher.gate.set()
        answers = await asyncio.gather(*asked)
    for text, answer in zip(TEXTS, answers, strict=True):
        alone = retrieval.search(searcher, query_for(text), options(k=3), Stages())
        assert hits(answer) == hits(alone)
        assert hits(answer)[0]["score"] == pytest.approx(1.0, abs=1e-3)
        assert {"search_ms", "columns_ms"} <= json.loads(answer)["timings"].keys()


async def test_each_has_its_own_options(searcher: GatedSearcher) -> None:
    with Workers(1) as workers:
        searches = SharedSearches(workers, 1)
        asked = [ask(searches, searcher, TEXTS[0], k=k) for k in (1, 2, 1, 4, 3)]
        asked.append(ask(searches, searcher, TEXTS[0], min_score=0.99))
        await until_begun(searcher)
        searcher.gate.set()
        answers = await asyncio.gather(*asked)
    assert [len(hits(answer)) for answer in answers] == [1, 2, 1, 4, 3, 1]


async def test_searches_of_another_searcher_are_not_mixed_in(searcher: GatedSearcher) -> None:
    newer = GatedSearcher(searcher)
    with Workers(1) as workers:
        searches = SharedSearches(workers, 1)
        asked = [ask(searches, one, "a") for one in (searcher, searcher, newer, newer, searcher)]
        await until_begun(searcher)
        searcher.gate.set()
        newer.gate.set()
        await asyncio.gather(*asked)
    assert (searcher.sizes, newer.sizes) == ([1, 1, 1], [2])


async def test_where_the_common_search_fails_each_is_made_alone(searcher: GatedSearcher) -> None:
    searcher.fails = lambda num_queries: num_queries > 1
    with Workers(1) as workers:
        asked = await ask_each(SharedSearches(workers, 1), searcher, TEXTS)
        searcher.gate.set()
        answers = await asyncio.gather(*asked)
    assert all(hits(answer) for answer in answers)
    assert searcher.sizes == [1, 7] + [1] * 7


async def test_what_cannot_be_searched_fails_alone(
    searcher: GatedSearcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = ranking.build_rated_requests

    def refuse_k_two(query: QueryEmbedding, wanted: RatedOptions) -> Any:
        if wanted.k == 2:
            raise ApiError("invalid_value", "not two")
        return build(query, wanted)

    monkeypatch.setattr(ranking, "build_rated_requests", refuse_k_two)
    with Workers(1) as workers:
        searches = SharedSearches(workers, 1)
        asked = [ask(searches, searcher, TEXTS[0], k=k) for k in (1, 2, 3)]
        await until_begun(searcher)
        searcher.gate.set()
        first, second, third = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(second, ApiError)
    assert isinstance(first, bytes)
    assert isinstance(third, bytes)


async def test_what_was_given_up_is_not_searched(searcher: GatedSearcher) -> None:
    with Workers(1) as workers:
        asked = await ask_each(SharedSearches(workers, 1), searcher, TEXTS)
        for given_up in asked[:4]:  # the first of them runs
            given_up.cancel()
        await asyncio.sleep(0)
        searcher.gate.set()
        await asyncio.gather(*asked[4:])
    assert searcher.sizes == [1, 4]


@pytest.mark.parametrize(
    ("fields", "is_traced", "expected"),
    [
        pytest.param({}, False, True, id="a plain one"),
        pytest.param({"min_percentile": 0.5}, False, True, id="rated"),
        pytest.param({"k": MAX_K + 1}, False, False, id="many hits"),
        pytest.param({"filter": Filter()}, False, False, id="a filter"),
        pytest.param({"collapse_identical": True}, False, False, id="collapsing"),
        pytest.param({}, True, False, id="traced"),
    ],
)
def test_only_searches_of_about_one_length_are_shared(
    fields: dict[str, Any], is_traced: bool, expected: bool
) -> None:
    assert can_share(options(**fields), Stages(is_traced=is_traced)) is expected
