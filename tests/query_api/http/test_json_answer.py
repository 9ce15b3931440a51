"""How answers are sent."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from query_api.http.json_answer import json_answer


@pytest.mark.parametrize("num_bytes", [10, 3 * 2**20])
async def test_an_answer_arrives_whole_with_its_length_whether_it_is_sent_in_pieces_or_not(
    num_bytes: int,
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return json_answer(json.dumps("x" * num_bytes))

    app = web.Application()
    app.router.add_get("/", answer)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/")
        assert await response.json() == "x" * num_bytes
    assert response.headers["Content-Length"] == str(num_bytes + 2)
    assert response.headers["Content-Type"] == "application/json; charset=utf-8"
    assert "Content-Disposition" not in response.headers


async def test_a_large_answer_is_not_handed_over_at_once_because_that_holds_the_event_loop() -> None:
    small, large = json_answer(b"1"), json_answer(b"1" * 3 * 2**20)
    assert isinstance(small.body, bytes)
    assert not isinstance(large.body, bytes)
