"""One request has only so much encoded."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import TestClient

Client = TestClient[Any, Any]
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
