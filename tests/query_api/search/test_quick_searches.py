"""A plain search that is alone is made on the event loop. Its answer is the one that a worker gives."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import numpy as np
import pytest
from aiohttp.test_utils import TestClient
from numpy.typing import NDArray
from opentelemetry.sdk.trace import TracerProvider

from clip_index.searching.searcher import Searcher
from fakes.hash_encoder import HashEncoder
from query_api.http.guards.api_keys import ApiKeys, digest_of
from query_api.http.guards.rate_limit import RateLimit
from query_api.search.quick_searches import QuickSearches
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.request.options import RatedOptions
from query_api.serving.request_slots import RequestSlots
from query_api.serving.workers import Workers
from query_api.swap.index_swap import INDEX_SWAP
from query_api.telemetry.stages import Stages
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]
ALWAYS, NEVER = 3600.0, 0.0
EMBEDDING: NDArray[np.float32] = np.asarray(
    HashEncoder().encode([HashEncoder().prepare_text("a dress")])[0][0]
)
VECTOR = EMBEDDING.tolist()
PICTURES = {"must": [{"field": "source", "equals": "test"}]}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The thread that made each search: the event loop's, or a worker. Background work searches too."""
    names: list[str] = []
    search, loop_thread = Searcher.search, threading.current_thread().name

    def note(searcher: Searcher, *args: Any, **options: Any) -> Any:
        name = threading.current_thread().name
        if name == loop_thread or name.startswith("worker"):
            names.append(name)
        return search(searcher, *args, **options)

    monkeypatch.setattr(Searcher, "search", note)
    return names


async def ask(client: Client, **body: Any) -> None:
    response = await client.post("/v1/search", json=body)
    assert response.status == 200, await response.text()


async def test_the_first_search_of_a_searcher_is_made_in_a_worker_and_the_next_on_the_event_loop(
    small_index: SmallIndex, start_service: StartService, threads: list[str]
) -> None:
    client = await start_service(small_index, loop_search_seconds=ALWAYS)
    for _ in range(3):
        await ask(client, vector=VECTOR, modality="text")
    loop_thread = threading.current_thread().name
    assert threads[0].startswith("worker")
    assert threads[1:] == [loop_thread, loop_thread]
    small_index.commit(0, small_index.text("t-new", "a new dress"))
    await ask(client, vector=VECTOR, modality="text", min_offsets={"content-uploads-0": 4}, timeout_ms=60_000)
    assert threads[3] == loop_thread, "beside the searcher before it has a small segment alone"
    searcher = client.app[INDEX_SWAP].pair.index.searcher  # type: ignore[union-attr, index]
    searcher.lineage = object()  # type: ignore[misc]
    await ask(client, vector=VECTOR, modality="text")
    assert threads[4].startswith("worker")


@pytest.mark.parametrize(
    "further",
    [{"include": ["text"]}, {"filter": PICTURES}, {"k": 101}, {"paged": True}, {"collapse_identical": True}],
    ids=lambda further: next(iter(further)),
)
async def test_a_search_that_may_take_longer_is_made_in_a_worker(
    small_index: SmallIndex, start_service: StartService, threads: list[str], further: dict[str, Any]
) -> None:
    client = await start_service(small_index, loop_search_seconds=ALWAYS)
    await ask(client, vector=VECTOR, modality="text")
    await ask(client, vector=VECTOR, modality="text", **further)
    assert all(name.startswith("worker") for name in threads)


async def test_a_small_batch_that_is_alone_is_made_on_the_event_loop(
    small_index: SmallIndex, start_service: StartService, threads: list[str]
) -> None:
    client = await start_service(small_index, loop_search_seconds=ALWAYS)
    queries = [{"vector": VECTOR, "modality": "text"}, {"vector": VECTOR, "modality": "text", "k": 2}]
    await ask(client, queries=queries)
    await ask(client, queries=queries)
    await ask(client, queries=[*queries, {"vector": VECTOR, "filter": PICTURES}])
    is_in_worker = [name.startswith("worker") for name in threads]
    assert is_in_worker == [True, True, False, False, True, True, True, True]


async def test_with_0_no_search_is_made_on_the_event_loop(
    small_index: SmallIndex, start_service: StartService, threads: list[str]
) -> None:
    client = await start_service(small_index, loop_search_seconds=NEVER)
    for _ in range(3):
        await ask(client, vector=VECTOR, modality="text")
    assert all(name.startswith("worker") for name in threads)


async def test_a_service_with_one_search_at_a_time_makes_all_short_ones_on_the_event_loop(
    small_index: SmallIndex, start_service: StartService, threads: list[str]
) -> None:
    client = await start_service(small_index, loop_search_seconds=ALWAYS, num_workers=3)
    await ask(client, vector=VECTOR, modality="text")
    await asyncio.gather(*(ask(client, vector=VECTOR, modality="text") for _ in range(8)))
    assert threads[1:] == [threading.current_thread().name] * 8


class TestTheDecision:
    searcher = Searcher((), len(VECTOR))
    query = QueryEmbedding(EMBEDDING)

    def quick(
        self, *, seconds: float, slots: RequestSlots | None = None, has_one_processor: bool = False
    ) -> QuickSearches:
        """Its last search took so long, by a clock of our own."""
        moments = iter([0.0, 0.0, seconds])
        stages = Stages(clock=lambda: next(moments))
        with stages.measure("search"):
            pass
        searches = QuickSearches(
            slots or RequestSlots(4), Workers(1), max_seconds=0.01, has_one_processor=has_one_processor
        )
        searches.note(self.searcher, stages)
        return searches

    async def test_a_quick_searcher_answers_on_the_loop(self) -> None:
        assert await self.quick(seconds=0.009).may_run(self.searcher, [(self.query, RatedOptions())])

    async def test_a_slow_one_does_not(self) -> None:
        assert not await self.quick(seconds=0.011).may_run(self.searcher, [(self.query, RatedOptions())])

    async def test_each_query_of_a_batch_is_taken_to_need_the_time_of_the_last_search(self) -> None:
        quick = self.quick(seconds=0.004)
        assert await quick.may_run(self.searcher, [(self.query, RatedOptions())] * 2)
        assert not await quick.may_run(self.searcher, [(self.query, RatedOptions())] * 3)

    async def test_of_a_batch_the_time_of_one_query_is_remembered(self) -> None:
        moments = iter([0.0, 0.0, 0.032])
        stages = Stages(clock=lambda: next(moments))
        with stages.measure("search"):
            pass
        quick = self.quick(seconds=1.0)
        quick.note(self.searcher, stages, num_queries=16)
        assert await quick.may_run(self.searcher, [(self.query, RatedOptions())] * 5)
        assert not await quick.may_run(self.searcher, [(self.query, RatedOptions())] * 6)

    async def test_another_searcher_is_not_known_to_be_quick(self) -> None:
        other = Searcher((), len(VECTOR))
        assert not await self.quick(seconds=0.0).may_run(other, [(self.query, RatedOptions())])

    async def test_a_picture_of_several_crops_is_several_searches(self) -> None:
        crops = QueryEmbedding.of_picture(np.stack([EMBEDDING, EMBEDDING]))
        assert not await self.quick(seconds=0.0).may_run(self.searcher, [(crops, RatedOptions())])

    async def test_beside_another_request_none_is_made_on_the_loop(self) -> None:
        slots = RequestSlots(4)
        quick = self.quick(seconds=0.0, slots=slots)
        with slots.working("a"):
            assert await quick.may_run(self.searcher, [(self.query, RatedOptions())])
            with slots.working("b"):
                assert not await quick.may_run(self.searcher, [(self.query, RatedOptions())])

    async def test_with_one_processor_short_ones_are_made_on_the_loop_beside_other_requests(self) -> None:
        slots = RequestSlots(4)
        quick = self.quick(seconds=0.009, slots=slots, has_one_processor=True)
        slow = self.quick(seconds=0.011, slots=slots, has_one_processor=True)
        with slots.working("a"), slots.working("b"):
            assert await quick.may_run(self.searcher, [(self.query, RatedOptions())])
            assert not await slow.may_run(self.searcher, [(self.query, RatedOptions())])
            assert not await quick.may_run(Searcher((), len(VECTOR)), [(self.query, RatedOptions())])

    async def test_requests_that_arrive_together_see_each_other(self) -> None:
        slots = RequestSlots(4)
        quick = self.quick(seconds=0.0, slots=slots)

        async def answer() -> bool:
            with slots.working():
                return await quick.may_run(self.searcher, [(self.query, RatedOptions())])

        assert await asyncio.gather(answer(), answer(), answer()) == [False, False, True]


BODIES: list[dict[str, Any]] = [
    {"vector": VECTOR},
    {"vector": VECTOR, "modality": "image", "k": 2},
    {"vector": VECTOR, "modality": "text", "min_score": 0.2},
    {"vector": VECTOR, "modality": "text", "min_score": 1},
    {"vector": VECTOR, "include": ["text", "metadata", "vector", "thumbnail", "thumbnail_url"]},
    {"vector": VECTOR, "filter": {"must": [{"field": "owner_id", "equals": "ann"}]}},
    {"vector": VECTOR, "collapse_identical": True},
    {"vector": VECTOR, "min_offsets": {"content-uploads-0": 3}},
    {"text": "a red dress"},
    {"content_id": "t-red"},
    {"terms": [{"text": "a red dress"}, {"content_id": "p-1", "weight": -0.5}]},
    {"queries": [{"vector": VECTOR}, {"text": "a coat", "k": 1}]},
    {"vector": VECTOR, "paged": True, "k": 1},
    {"vector": VECTOR[:-1]},
    {"vector": [0.0] * len(VECTOR)},
    {"vector": VECTOR, "k": 0},
    {"vector": VECTOR, "sort": "price"},
    {"vector": VECTOR, "text": "both"},
    {"vector": VECTOR, "by_modality": False},
    {"content_id": "nobody"},
    {"min_offsets": {"elsewhere-7": 1}, "vector": VECTOR},
]


async def answers(client: Client, headers: dict[str, str]) -> list[tuple[int, list[str], bytes]]:
    """What each body is answered, twice: status, names of headers, and the bytes before the times."""
    found = []
    for body in BODIES:
        for _ in range(2):  # the first of a new searcher is made in a worker
            response = await client.post("/v1/search", json=body, headers=headers)
            content = (await response.read()).partition(b',"timings":')[0]
            found.append((response.status, sorted(response.headers), content))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="as it is"),
        pytest.param({"keys": ApiKeys(frozenset({digest_of("right")}))}, id="with keys"),
        pytest.param({"rate_limit": RateLimit(per_second=1e-6, burst=12)}, id="with a rate limit"),
        pytest.param({"max_concurrent_requests": 1}, id="one at a time"),
        pytest.param({"tracer": TracerProvider().get_tracer("test")}, id="with traces"),
    ],
)
@pytest.mark.parametrize("key", ["right", "wrong"])
async def test_answers_are_the_same_bytes_whether_the_loop_or_a_worker_searches(
    small_index: SmallIndex, start_service: StartService, settings: dict[str, Any], key: str
) -> None:
    headers = {"X-Request-Id": "the-same", "api-key": key}
    on_the_loop = await start_service(small_index, loop_search_seconds=ALWAYS, **settings)
    in_workers = await start_service(small_index, loop_search_seconds=NEVER, **settings)
    expected = await answers(in_workers, headers)
    assert await answers(on_the_loop, headers) == expected
    assert {json.loads(content)["error"]["code"] for status, _, content in expected if status == 429} <= {
        "too_many_requests"
    }
