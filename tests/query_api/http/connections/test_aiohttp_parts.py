"""The service answers with an aiohttp that lacks what it does not promise, and keeps the bounds it can."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from query_api.http.connections import aiohttp_parts
from query_api.http.connections.aiohttp_parts import WAITING_PARTS, has_begun_answer
from query_api.http.connections.connection import Connection, ConnectionLimits
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.http.connections.test_connections import read_all
from tests.query_api.http.connections.test_open_connections import (
    Serve,
    ask,
    hold,
    hold_at_work,
    listen,
    serve,
)

__all__ = ["serve"]
LIMITS = ConnectionLimits(max_connections=3, num_reserved=0)


@pytest.mark.parametrize("lacking", WAITING_PARTS)
def test_a_connection_that_lacks_one_part_does_not_tell_since_when_it_waits(lacking: str) -> None:
    has = {name: None for name in WAITING_PARTS if name != lacking}
    assert not aiohttp_parts.tells_waiting(SimpleNamespace(**has))
    assert aiohttp_parts.tells_waiting(SimpleNamespace(**has, **{lacking: None}))


@pytest.fixture
def _no_waiting_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiohttp_parts, "WAITING_PARTS", ("_renamed",))


@pytest.mark.usefixtures("_no_waiting_parts")
@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nX-Slow: "], ids=["idle", "slow headers"])
async def test_without_those_parts_idle_and_slow_connections_still_make_room(
    serve: Serve, sent: bytes
) -> None:
    async with serve(LIMITS) as address, AsyncExitStack() as stack:
        held = [await hold(stack, address, sent) for _ in range(3)]
        for _ in range(4):
            assert (await ask(address)).startswith(b"HTTP/1.1 200")
        assert await asyncio.wait_for(read_all(held[0]), PATIENCE_SECONDS) == b""


@pytest.mark.usefixtures("_no_waiting_parts")
async def test_without_those_parts_connections_at_work_are_kept_and_newcomers_refused(serve: Serve) -> None:
    async with serve(LIMITS) as address, AsyncExitStack() as stack:
        for _ in range(3):
            await hold_at_work(stack, address)
        assert (await listen(address)).startswith(b"HTTP/1.1 503")


@pytest.mark.usefixtures("_no_waiting_parts")
async def test_without_those_parts_an_idle_connection_does_not_hold_the_stop(serve: Serve) -> None:
    began = asyncio.get_running_loop().time()
    async with AsyncExitStack() as stack:
        async with serve(ConnectionLimits()) as address:
            kept = await hold(stack, address, b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await kept.readuntil(b"\r\n\r\n")
        assert (await asyncio.wait_for(read_all(kept), PATIENCE_SECONDS)).endswith(b"}")
    assert asyncio.get_running_loop().time() - began < PATIENCE_SECONDS / 2


@pytest.mark.parametrize("error", [AttributeError("no such part"), TypeError("unexpected argument")])
async def test_where_our_connections_cannot_be_built_those_of_aiohttp_answer(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(Connection, "__init__", refuse)
    async with serve(LIMITS) as address:
        assert (await ask(address)).startswith(b"HTTP/1.1 200")


def test_an_error_of_an_unreadable_request_is_answered_though_aiohttp_does_not_tell_what_it_sent() -> None:
    request: Any = SimpleNamespace()
    assert not has_begun_answer(request, 400)
    assert has_begun_answer(request, 500)
    request.writer = SimpleNamespace(output_size=0)
    assert not has_begun_answer(request, 500)
