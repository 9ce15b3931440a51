"""A sample of live queries: kept only if the operator wants it, for a time, and read with an admin key."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient

from fakes.hash_encoder import draw_picture
from query_api.http.guards.api_keys import ApiKeys, digest_of
from query_api.search.query_sample import QuerySample, QuerySampleSettings
from query_api.search.request.models import Query
from query_api.settings import QueryApiSettings
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

ADMIN = {"api-key": "administers"}
KEPT = QuerySampleSettings(max_queries=100)
ADMIN_KEYS = ApiKeys(admin=frozenset({digest_of("administers")}))
ALL_KEYS = ApiKeys(
    frozenset({digest_of("reads")}), frozenset({digest_of("writes")}), frozenset({digest_of("administers")})
)


def sample(max_queries: int = 100, hours: float = 24.0) -> tuple[QuerySample, list[float]]:
    now = [1_000_000.0]
    settings = QuerySampleSettings(max_queries, hours)
    return QuerySample(settings, random.Random(7), clock=lambda: now[0]), now


def query(**fields: Any) -> Query:
    return Query.model_validate(fields)


def test_a_query_is_kept_as_it_can_be_asked_again() -> None:
    kept, _ = sample()
    wanted = {"must": [{"field": "metadata.price", "lt": 20.0}, {"field": "source", "any_of": ["shop"]}]}
    terms = [{"text": "a red dress"}, {"content_id": "t-1", "weight": -0.5}]
    for one in (
        query(
            text="a red dress", k=50, modality="image", filter=wanted, include=["text"], min_percentile=0.5
        ),
        query(content_id="t-1"),
        query(terms=terms),
    ):
        kept.offer(one)
    assert [one.body for one in kept.queries()] == [
        {"text": "a red dress", "modality": "image", "filter": wanted},
        {"content_id": "t-1"},
        {"terms": terms},
    ]
    assert all(query(**one.body) for one in kept.queries())


def test_pictures_vectors_and_very_long_queries_are_only_counted() -> None:
    kept, _ = sample()
    picture = base64.b64encode(draw_picture(1)).decode()
    kept.offer(query(image=picture))
    kept.offer(query(terms=[{"image": picture}, {"text": "red"}]))
    kept.offer(query(vector=[0.5] * 8))
    kept.offer(query(text="word " * 3000))
    kept.offer_picture()
    assert not kept.queries()
    assert kept.not_kept == {"image": 3, "vector": 1, "large": 1}


@pytest.mark.parametrize("num_queries", [50, 1_000, 20_000])
def test_the_sample_is_bounded_and_its_weights_add_up_to_the_queries(num_queries: int) -> None:
    kept, _ = sample(max_queries=200)
    for number in range(num_queries):
        kept.offer_text(f"query {number}")
        assert len(kept.queries()) <= 200
    total = sum(one.weight for one in kept.queries())
    assert total == pytest.approx(num_queries, rel=0.0 if num_queries <= 200 else 0.3)
    numbers = [int(one.body["text"].split()[1]) for one in kept.queries()]
    assert numbers[0] < num_queries * 0.1  # not only the latest ones
    assert numbers[-1] > num_queries * 0.9


def test_a_query_is_forgotten_after_its_time_and_then_more_are_kept_again() -> None:
    kept, now = sample(max_queries=10, hours=2.0)
    for number in range(200):
        kept.offer_text(f"query {number}")
    now[0] += 2 * 3600 + 1
    assert not kept.queries()
    for number in range(400):
        kept.offer_text(f"later {number}")
        now[0] += 60
    assert len(kept.queries()) > 2
    assert all(now[0] - one.asked_at <= 2 * 3600 for one in kept.queries())


def test_nothing_is_kept_without_the_setting() -> None:
    kept, _ = sample(max_queries=0)
    kept.offer_text("a red dress")
    kept.offer(query(text="a red dress"))
    kept.offer_picture()
    assert not kept.queries()
    assert not kept.not_kept


def test_queries_are_not_kept_where_no_key_could_protect_them() -> None:
    with pytest.raises(ValueError, match="QUERY_SAMPLE_SIZE: set CLIPTIDE_QUERY_API__ADMIN_KEYS as well"):
        QueryApiSettings(query_sample_size=10)
    digest = digest_of("administers").hex()
    assert QueryApiSettings(query_sample_size=10, admin_keys=frozenset({digest})).query_sample_size == 10


async def read(client: TestClient[Any, Any]) -> dict[str, Any]:
    response = await client.get("/v1/query_sample", headers=ADMIN)
    assert response.status == 200
    answer: dict[str, Any] = await response.json()
    return answer


async def test_searches_of_every_kind_are_in_the_sample(
    start_service: StartService, small_index: SmallIndex
) -> None:
    client = await start_service(small_index, query_sample=KEPT, keys=ADMIN_KEYS)
    picture = FormData(default_to_multipart=True)
    picture.add_field("image_file", draw_picture(1), filename="f.png", content_type="image/png")
    retrieve = "/mv_retrieval/v0.1/retrieve_contents"
    for response in (
        await client.get("/v1/search", params={"q": "one"}),
        await client.post("/v1/search", json={"text": "two", "paged": True, "k": 1}),
        await client.post("/v1/search/batch", json={"queries": [{"text": "three"}, {"content_id": "t-red"}]}),
        await client.post("/text_url", params={"text_query": "four"}),
        await client.post("/display_text", params={"text_query": "five"}),
        await client.post(retrieve, params={"type": "text", "user": "ann"}, data=b"six"),
        await client.post(retrieve, params={"type": "image"}, data=draw_picture(1)),
        await client.post("/image_url", data=picture),
        await client.post("/text_url", params={"text_query": " "}),
    ):
        assert response.status == 200
    answer = await read(client)
    assert [one["query"] for one in answer["queries"]] == [
        {"text": "one"},
        {"text": "two"},
        {"text": "three"},
        {"content_id": "t-red"},
        {"text": "four", "modality": "image"},
        {"text": "five", "modality": "image"},
        {"text": "six"},
    ]
    assert answer["not_kept"] == {"image": 2}
    assert (answer["max_queries"], answer["hours"]) == (100, 24.0)
    assert {one["weight"] for one in answer["queries"]} == {1}


async def test_the_next_page_of_a_query_is_no_further_query(
    start_service: StartService, small_index: SmallIndex
) -> None:
    client = await start_service(small_index, query_sample=KEPT, keys=ADMIN_KEYS)
    first = await client.post("/v1/search", json={"text": "red", "paged": True, "k": 1, "modality": "text"})
    cursor = (await first.json())["next_cursor"]
    assert (await client.post("/v1/search", json={"cursor": cursor})).status == 200
    assert len((await read(client))["queries"]) == 1


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 401, "key_required"),
        ("of nobody", 401, "unknown_key"),
        ("reads", 403, "forbidden"),
        ("writes", 403, "forbidden"),
    ],
)
@pytest.mark.parametrize(
    "keys", [ALL_KEYS, ApiKeys(ALL_KEYS.read, ALL_KEYS.write)], ids=["admin", "no admin"]
)
async def test_only_an_admin_key_reads_what_others_have_asked(
    start_service: StartService,
    small_index: SmallIndex,
    keys: ApiKeys,
    key: str | None,
    status: int,
    code: str,
) -> None:
    client = await start_service(small_index, query_sample=KEPT, keys=keys)
    response = await client.get("/v1/query_sample", headers={} if key is None else {"api-key": key})
    assert (response.status, (await response.json())["error"]["code"]) == (status, code)


async def test_a_service_without_keys_shows_its_sample_to_nobody(
    start_service: StartService, small_index: SmallIndex
) -> None:
    client = await start_service(small_index, query_sample=KEPT)
    for headers in ({}, ADMIN):
        assert (await client.get("/v1/query_sample", headers=headers)).status == 401


async def test_an_admin_key_opens_nothing_else(start_service: StartService, small_index: SmallIndex) -> None:
    client = await start_service(small_index, query_sample=KEPT, keys=ALL_KEYS)
    assert (await client.get("/v1/search", params={"q": "red"}, headers=ADMIN)).status == 403
    upload = {"content_id": "t", "content": {"text": "red"}}
    assert (await client.post("/v1/contents", json=upload, headers=ADMIN)).status == 403
