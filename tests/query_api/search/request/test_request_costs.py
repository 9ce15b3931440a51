"""A request is refused or charged by what it costs: windows, not characters; conditions, not filters."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from query_api.search.request.models import SearchRequest
from query_api.search.request.request_costs import MAX_CONDITIONS, count_conditions, count_windows
from query_api.search.request.tokens import surplus_of_search

Client = TestClient[Any, Any]
ENGLISH = "the quick brown fox jumps over the lazy dog and runs away "
CHINESE = "\u7d05\u8272\u7684\u88d9\u5b50"


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("", 0, 0),
        ("a red dress", 1, 1),
        (ENGLISH * 35, 10, 14),
        (CHINESE * 400, 75, 85),
        ("1 2 3 " * 300, 10, 13),
    ],
)
def test_windows_are_counted_by_what_tokens_are_made_of(text: str, least: int, most: int) -> None:
    assert least <= count_windows(text) <= most


async def test_a_text_that_has_thousands_of_windows_is_refused_whatever_its_script(client: Client) -> None:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/search", {"queries": [{"text": CHINESE * 160}] * 64}),
        ("/v1/embed", {"contents": [{"text": CHINESE * 160}] * 64}),
        ("/v1/recommend", {"positive": [{"text": CHINESE * 160}] * 64}),
    ]
    for path, body in bodies:
        answer = await client.post(path, json=body)
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (422, "out_of_range")
        assert "windows together" in error["message"]


async def test_conditions_of_all_queries_count_together(client: Client) -> None:
    condition = {"field": "source", "any_of": ["a"] * 256}
    query = {"text": "red", "filter": {"must": [condition] * 16}}
    answer = await client.post("/v1/search", json={"queries": [query] * 2})
    assert answer.status == 200
    answer = await client.post("/v1/search", json={"queries": [query] * 7})
    error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (422, "out_of_range")
    assert f"more than {MAX_CONDITIONS} conditions" in error["message"]


def test_values_of_a_condition_and_windows_of_a_text_are_charged() -> None:
    few = SearchRequest.model_validate(
        {"text": "red", "filter": {"must": [{"field": "source", "equals": "a"}]}}
    )
    assert (count_conditions(few.filter), surplus_of_search(few)) == (1, 0.0)
    condition = {"field": "source", "any_of": ["a"] * 256}
    many = SearchRequest.model_validate({"text": CHINESE * 160, "filter": {"must": [condition] * 8}})
    assert count_conditions(many.filter) == 40
    assert surplus_of_search(many) == 7.0


LONG = {"text": "a" * 20_000}
TOO_COSTLY = {
    "long texts in a batch": ("/v1/search", {"queries": [LONG] * 11}),
    "long texts in a batch of its own route": ("/v1/search/batch", {"queries": [LONG] * 11}),
    "long terms of a query": ("/v1/search", {"terms": [LONG] * 11}),
    "many terms in a batch": ("/v1/search", {"queries": [{"terms": [{"text": "a"}] * 16}] * 17}),
    "long examples": ("/v1/recommend", {"positive": [LONG] * 6, "negative": [LONG] * 5}),
    "long contents": ("/v1/embed", {"contents": [LONG] * 11}),
}


@pytest.mark.parametrize(("path", "body"), TOO_COSTLY.values(), ids=TOO_COSTLY)
async def test_texts_that_are_too_many_or_too_long_together_are_refused(
    client: Client, path: str, body: Any
) -> None:
    response = await client.post(path, json=body)
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (422, "out_of_range")
    assert "send several requests" in error["message"]


@pytest.mark.parametrize("path", ["/v1/search", "/v1/search/batch"])
async def test_a_full_batch_of_ordinary_texts_is_answered(client: Client, path: str) -> None:
    queries = [{"text": f"a red dress {number}", "k": 1} for number in range(64)]
    response = await client.post(path, json={"queries": queries})
    assert response.status == 200
    assert len((await response.json())["answers"]) == 64
