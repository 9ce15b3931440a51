"""Filters, collapsed pictures, combined queries and batches, over HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from fakes.hash_encoder import draw_picture
from query_api.search.request.models import SearchRequest
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]


async def post(client: Client, **body: Any) -> tuple[int, dict[str, Any]]:
    response = await client.post("/v1/search", json=body)
    return response.status, await response.json()


async def found(client: Client, **body: Any) -> list[str]:
    status, answer = await post(client, text="red", **body)
    assert status == 200, answer
    hits = [hit for results in answer["results"].values() for hit in results["hits"]]
    return sorted(hit["content_id"] for hit in hits)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        pytest.param({"field": "modality", "equals": "image"}, ["p-1", "p-2", "p-3"], id="modality"),
        pytest.param({"field": "owner_id", "equals": "ann"}, ["t-red"], id="owner"),
        pytest.param({"field": "owner_id", "exists": True}, ["t-red"], id="has an owner"),
        pytest.param({"field": "content_id", "any_of": ["p-1", "t-red", "none"]}, ["p-1", "t-red"], id="ids"),
        pytest.param({"field": "metadata.price", "gte": 12.5, "lt": 13}, ["t-red"], id="number"),
        pytest.param({"field": "metadata.price", "equals": 12}, [], id="another number"),
        pytest.param({"field": "metadata.new", "equals": True}, ["t-red"], id="boolean"),
        pytest.param({"field": "metadata.new", "equals": 1}, [], id="a boolean is no number"),
        pytest.param(
            {"field": "occurred_at", "gt": "2023-11-14T23:13:19.999+01:00", "lte": "2023-11-14T22:13:20Z"},
            ["p-1", "p-2", "p-3", "t-blue", "t-red", "t-shoe"],
            id="time",
        ),
        pytest.param({"field": "occurred_at", "lt": "2023-11-14T22:13:20Z"}, [], id="earlier"),
    ],
)
async def test_a_condition_decides_what_is_answered(
    client: Client, wanted: dict[str, Any], expected: list[str]
) -> None:
    assert await found(client, filter={"must": [wanted]}) == expected
    rest = sorted({"p-1", "p-2", "p-3", "t-blue", "t-red", "t-shoe"} - set(expected))
    assert await found(client, filter={"must_not": [wanted]}) == rest


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        pytest.param({"any_of": ["sale", "old"]}, ["both", "sale", "single"], id="any of"),
        pytest.param({"all_of": ["sale", "new"]}, ["both"], id="all of"),
        pytest.param({"all_of": ["sale"]}, ["both", "sale", "single"], id="all of one"),
        pytest.param({"equals": "new"}, ["both"], id="one of a list"),
        pytest.param({"exists": True}, ["both", "empty", "sale", "single"], id="has the key"),
        pytest.param({"gt": 1}, [], id="a range"),
    ],
)
async def test_lists_of_texts_are_filtered_by_any_and_by_all(
    small_index: SmallIndex, start_service: StartService, test: dict[str, Any], expected: list[str]
) -> None:
    tags: dict[str, Any] = {"both": ("new", "sale"), "sale": ("sale",), "empty": (), "single": "sale"}
    small_index.commit(0, *(small_index.text(i, f"red {i}", metadata={"tags": v}) for i, v in tags.items()))
    client = await start_service(small_index)
    assert await found(client, filter={"must": [{"field": "metadata.tags", **test}]}) == expected


async def test_a_list_of_texts_is_answered_as_it_came_and_filtered_in_a_query_string(
    small_index: SmallIndex, start_service: StartService
) -> None:
    small_index.commit(0, small_index.text("hat", "a red hat", metadata={"tags": ("new", "sale")}))
    client = await start_service(small_index)
    query = {"q": "red hat", "metadata.tags": "sale", "include": "metadata"}
    answer = await (await client.get("/v1/search", params=query)).json()
    [hit] = answer["results"]["text"]["hits"]
    assert (hit["content_id"], hit["metadata"]) == ("hat", {"tags": ["new", "sale"]})


async def test_should_needs_one_of_its_conditions(client: Client) -> None:
    owner, number = {"field": "owner_id", "equals": "ann"}, {"field": "content_id", "equals": "p-3"}
    assert await found(client, filter={"should": [owner, number]}) == ["p-3", "t-red"]
    assert await found(client, filter={"should": [owner, number], "must": [number]}) == ["p-3"]


async def test_an_empty_filter_lets_all_pass(client: Client) -> None:
    assert len(await found(client, filter={})) == 6


async def test_exists_false_means_that_there_is_no_value(client: Client) -> None:
    wanted = {"must": [{"field": "metadata.price", "exists": False}]}
    assert "t-red" not in await found(client, filter=wanted)
    assert len(await found(client, filter=wanted)) == 5


@pytest.mark.parametrize(
    "condition",
    [
        pytest.param({"field": "colour", "equals": "red"}, id="unknown field"),
        pytest.param({"field": "source"}, id="no test"),
        pytest.param({"field": "source", "equals": "a", "any_of": ["b"]}, id="two tests"),
        pytest.param({"field": "source", "gt": 1}, id="range of a text"),
        pytest.param({"field": "metadata.a", "gt": "b"}, id="text as a bound"),
        pytest.param({"field": "source", "equals": 1}, id="number for a text"),
        pytest.param({"field": "occurred_at", "gt": "yesterday"}, id="no time"),
        pytest.param({"field": "occurred_at", "gt": "2023-11-14T22:13:20"}, id="time without a zone"),
        pytest.param({"field": "occurred_at", "equals": 5}, id="number for a time"),
        pytest.param({"field": "metadata.a", "any_of": []}, id="any of nothing"),
    ],
)
async def test_a_malformed_condition_is_named(client: Client, condition: dict[str, Any]) -> None:
    status, answer = await post(client, text="red", filter={"must": [condition]})
    assert status == 422
    assert answer["error"]["details"][0]["field"].startswith("filter.must.0")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        pytest.param({"owner_id": "ann"}, ["t-red"], id="owner"),
        pytest.param({"source": "nowhere"}, [], id="source"),
        pytest.param({"metadata.price": "12.5"}, ["t-red"], id="number"),
        pytest.param({"metadata.new": "true", "source": "shop"}, ["t-red"], id="boolean and source"),
        pytest.param({"metadata.commit": "1e999"}, ["t-odd"], id="a text that no double holds"),
    ],
)
async def test_query_strings_filter_by_plain_fields(
    small_index: SmallIndex, start_service: StartService, parameters: dict[str, str], expected: list[str]
) -> None:
    small_index.commit(0, small_index.text("t-odd", "an odd hat", metadata={"commit": "1e999"}))
    client = await start_service(small_index)
    response = await client.get("/v1/search", params={"q": "red", **parameters})
    hits = [hit for results in (await response.json())["results"].values() for hit in results["hits"]]
    assert [hit["content_id"] for hit in hits] == expected


async def test_identical_pictures_are_one_hit_on_demand(
    small_index: SmallIndex, start_service: StartService
) -> None:
    for partition in (0, 1):
        small_index.commit(
            partition, *(small_index.image(f"copy-{partition}-{n}", draw_picture(1)) for n in range(5))
        )
    client = await start_service(small_index)
    everything = await found(client, modality="image", k=20)
    collapsed = await found(client, modality="image", k=3, collapse_identical=True)
    assert len(everything) == 13
    assert collapsed == ["copy-0-0", "p-2", "p-3"]


async def test_copies_of_a_long_text_are_one_hit_though_segments_hold_its_windows_in_different_orders(
    small_index: SmallIndex, start_service: StartService
) -> None:
    long = " ".join(f"word{n}" for n in range(100))
    [windows] = small_index.encoder.encode([small_index.encoder.prepare_text(long)])
    whole = small_index.text("long-1", long)
    last = replace(small_index.text("last", "its last words"), embeddings=windows[-1:])
    assert len(windows) == 2
    small_index.commit(0, whole)
    small_index.commit(0, last, replace(whole, content_id="long-2"))  # the last window is the first node
    client = await start_service(small_index)
    collapsed = await found(client, modality="text", k=20, collapse_identical=True)
    assert collapsed == ["last", "long-1", "t-blue", "t-red", "t-shoe"]


async def test_a_combined_query_is_pulled_and_pushed_by_its_terms(client: Client) -> None:
    async def best(*terms: dict[str, Any]) -> str:
        _, answer = await post(client, terms=list(terms), modality="text", k=1)
        hit: str = answer["results"]["text"]["hits"][0]["content_id"]
        return hit

    red, blue = {"text": "a red dress"}, {"text": "a blue coat with buttons", "weight": 3.0}
    assert await best(red, blue) == "t-blue"
    assert await best(red, {**blue, "weight": -0.3}) == "t-red"


async def test_contents_in_a_combined_query_are_not_answered(client: Client) -> None:
    _, answer = await post(client, terms=[{"content_id": "t-red"}, {"text": "coat"}], modality="text")
    assert [hit["content_id"] for hit in answer["results"]["text"]["hits"]] == ["t-blue", "t-shoe"]


async def test_terms_that_cancel_out_ask_for_nothing(client: Client) -> None:
    status, answer = await post(client, terms=[{"text": "red"}, {"text": "red", "weight": -1}])
    assert (status, answer["error"]["code"]) == (422, "zero_vector")


async def test_only_the_ratio_of_weights_counts(client: Client) -> None:
    weights = {"red dress": 1.0, "blue coat": -0.5}
    answers = []
    for scale in (1, 2**-40):
        terms = [{"text": text, "weight": scale * weight} for text, weight in weights.items()]
        status, answer = await post(client, terms=terms)
        assert status == 200, answer
        answers.append(answer["results"])
    assert answers[0] == answers[1]


async def test_a_batch_is_answered_in_order_and_as_its_queries_one_by_one(client: Client) -> None:
    queries: list[dict[str, Any]] = [
        {"text": "red dress", "k": 2},
        {"content_id": "p-1", "modality": "image"},
        {"text": "blue coat", "k": 2, "include": ["text"]},
        {"terms": [{"text": "shoes"}, {"text": "white"}], "filter": {"must_not": []}},
    ]
    status, batch = await post(client, queries=queries)
    assert status == 200, batch
    singles = [(await post(client, **query))[1]["results"] for query in queries]
    assert [answer["results"] for answer in batch["answers"]] == singles
    response = await client.post("/v1/search/batch", json={"queries": queries})
    assert [answer["results"] for answer in (await response.json())["answers"]] == singles


async def test_a_batch_waits_for_what_it_demands_of_the_index(client: Client) -> None:
    body = {"queries": [{"text": "red"}], "min_offsets": {"content-uploads-0": 3}, "timeout_ms": 0}
    assert (await client.post("/v1/search/batch", json=body)).status == 200
    body["min_offsets"] = {"content-uploads-0": 99}
    response = await client.post("/v1/search/batch", json=body)
    assert (await response.json())["error"]["code"] == "not_yet_covered"


async def test_what_a_client_sends_with_every_request_may_stand_beside_a_batch_and_a_cursor(
    client: Client,
) -> None:
    """Many clients write the defaults of their models, or null, for what nobody set."""
    defaults = SearchRequest(text="red").model_dump(exclude={"text"})
    status, batch = await post(client, **{**defaults, "queries": [{"text": "red"}]})
    assert status == 200, batch
    status, first = await post(client, text="red", k=1, paged=True)
    status, page = await post(client, **{**defaults, "cursor": first["next_cursor"], "text": None})
    assert status == 200, page


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param({"queries": []}, "out_of_range", id="none"),
        pytest.param({"queries": [{"text": "red"}] * 65}, "out_of_range", id="too many"),
        pytest.param({"queries": [{"text": "red", "k": 1000}] * 7}, "too_many_hits", id="too many hits"),
        pytest.param({"queries": [{"text": "red"}], "k": 3}, "invalid_value", id="an option beside them"),
        pytest.param({"queries": [{"text": "red"}], "text": "red"}, "one_query_required", id="two kinds"),
        pytest.param({"queries": [{"k": 3}]}, "one_query_required", id="an empty one"),
        pytest.param({"queries": [{"content_id": "gone"}]}, "unknown_content", id="an unknown id"),
    ],
)
async def test_a_malformed_batch_is_refused(client: Client, body: dict[str, Any], code: str) -> None:
    status, answer = await post(client, **body)
    assert (status // 100, answer["error"]["code"]) == (4, code)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        pytest.param({}, "missing_field", id="nothing"),
        pytest.param({"queries": []}, "out_of_range", id="none"),
        pytest.param({"queries": [{"text": "red"}] * 65}, "out_of_range", id="too many"),
        pytest.param({"queries": [{"text": "red", "k": 1000}] * 7}, "too_many_hits", id="too many hits"),
        pytest.param({"queries": [{"text": "red"}], "k": 3}, "unknown_field", id="an option beside them"),
        pytest.param({"queries": [{"text": "red"}], "text": "red"}, "unknown_field", id="two kinds"),
        pytest.param({"queries": [{"text": "red", "paged": True}]}, "unknown_field", id="pages"),
        pytest.param({"queries": [{"k": 3}]}, "one_query_required", id="an empty one"),
        pytest.param({"queries": [{"content_id": "gone"}]}, "unknown_content", id="an unknown id"),
    ],
)
async def test_a_malformed_batch_is_refused_by_its_own_route(
    client: Client, body: dict[str, Any], code: str
) -> None:
    response = await client.post("/v1/search/batch", json=body)
    assert (response.status // 100, (await response.json())["error"]["code"]) == (4, code)


async def test_a_filter_has_a_largest_size_and_the_largest_can_be_paged(client: Client) -> None:
    values = [f"{number:04}" + "\x01" * 1000 for number in range(70)]
    too_large = {"must_not": [{"field": "source", "any_of": values}]}
    status, answer = await post(client, text="red", filter=too_large)
    assert (status, answer["error"]["code"]) == (422, "out_of_range")
    largest = {"must_not": [{"field": "source", "any_of": values[:65]}]}
    status, answer = await post(client, text="red", filter=largest, paged=True, k=1)
    assert status == 200, answer
    status, answer = await post(client, cursor=answer["next_cursor"])
    assert status == 200, answer


async def test_a_filter_on_metadata_that_no_content_has_is_named_where_nothing_is_found(
    client: Client,
) -> None:
    colour = {"field": "metadata.colour", "equals": "red"}
    price = {"field": "metadata.price", "gte": 1}
    for body in ({"text": "red"}, {"text": "red", "paged": True, "modality": "text"}):
        _, answer = await post(client, **body, filter={"must": [colour, price]})
        assert answer["unknown_fields"] == ["metadata.colour"]
    _, batch = await post(client, queries=[{"text": "red", "filter": {"must": [colour]}}, {"text": "red"}])
    assert [one.get("unknown_fields") for one in batch["answers"]] == [["metadata.colour"], None]


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param({"must": [{"field": "metadata.price", "gt": 1e9}]}, id="nothing found, a known field"),
        pytest.param({"must_not": [{"field": "metadata.colour", "equals": "red"}]}, id="something found"),
    ],
)
async def test_otherwise_no_field_is_named(client: Client, wanted: dict[str, Any]) -> None:
    _, answer = await post(client, text="red", filter=wanted)
    assert "unknown_fields" not in answer
