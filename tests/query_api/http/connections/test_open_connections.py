"""Connections are bounded: whoever waits makes room, and a health check of this machine gets through."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from fakes.hash_encoder import HashEncoder
from query_api.app import AppSettings, build_app
from query_api.http.connections.connection import Connection, ConnectionLimits
from query_api.http.connections.listener import Address, listening
from query_api.http.connections.open_connections import OpenConnections
from query_api.telemetry.metrics import Metrics
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.http.connections.test_connections import HEAD, read_all
from tests.query_api.small_index import SmallIndex

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
Serve: TypeAlias = Callable[[ConnectionLimits], Any]


class FakeConnection:
    """Waits since a given time, or works (None)."""

    def __init__(self, waits_since: float | None = None) -> None:
        self.waits_since = waits_since
        self.is_closed = False

    def force_close(self) -> None:
        self.is_closed = True


def test_a_newcomer_takes_the_slot_of_the_connection_that_has_waited_longest() -> None:
    connections = OpenConnections(3, 0)
    held = [FakeConnection(2.0), FakeConnection(None), FakeConnection(1.0)]
    assert all(connections.admit(one, "192.0.2.1") for one in held)
    assert connections.admit(FakeConnection(3.0), "192.0.2.1")
    assert [one.is_closed for one in held] == [False, False, True]
    assert len(connections) == 3


def test_where_all_work_a_newcomer_is_refused_but_one_of_this_machine_has_a_reserve() -> None:
    connections = OpenConnections(2, 1)
    working = [FakeConnection(None) for _ in range(2)]
    assert all(connections.admit(one, "192.0.2.1") for one in working)
    assert not connections.admit(FakeConnection(), "192.0.2.1")
    assert connections.admit(FakeConnection(None), "127.0.0.1")
    assert not connections.admit(FakeConnection(None), "127.0.0.1")
    connections.release(working[0])
    assert connections.admit(FakeConnection(None), "127.0.0.1")


def test_connections_are_counted() -> None:
    registry = CollectorRegistry()
    connections = OpenConnections(1, 0, Metrics(registry))
    first, second = FakeConnection(1.0), FakeConnection(None)
    for one in (first, second, FakeConnection()):
        connections.admit(one, "192.0.2.1")
    counted = {
        status: registry.get_sample_value("cliptide_query_connections_total", {"status": status})
        for status in ("accepted", "displaced", "refused")
    }
    assert counted == {"accepted": 2, "displaced": 1, "refused": 1}
    assert registry.get_sample_value("cliptide_query_open_connections") == 1
    connections.release(second)
    assert registry.get_sample_value("cliptide_query_open_connections") == 0


@pytest.fixture
def serve(small_index: SmallIndex) -> Serve:
    """A factory of services on sockets of their own, for given limits; yields where."""

    @asynccontextmanager
    async def serve(limits: ConnectionLimits) -> AsyncIterator[tuple[str, int]]:
        reader = small_index.open_reader()
        reader.reload()
        app = build_app(HashEncoder(), reader, CollectorRegistry(), AppSettings())
        async with listening(app, Address("127.0.0.1", 0), limits, shutdown_seconds=1.0) as address:
            host, _, port = address.rpartition(":")
            yield host, int(port)

    return serve


async def ask(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    try:
        return await asyncio.wait_for(read_all(reader), PATIENCE_SECONDS)
    finally:
        writer.close()


async def hold(stack: AsyncExitStack, address: tuple[str, int], sent: bytes) -> asyncio.StreamReader:
    reader, writer = await asyncio.open_connection(*address)
    stack.callback(writer.close)
    writer.write(sent)
    await writer.drain()
    return reader


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nX-Slow: "], ids=["idle", "slow headers"])
async def test_idle_and_slow_connections_make_room(serve: Serve, sent: bytes) -> None:
    async with (
        serve(ConnectionLimits(max_connections=4, num_reserved=0)) as address,
        AsyncExitStack() as stack,
    ):
        held = [await hold(stack, address, sent) for _ in range(4)]
        for _ in range(6):
            assert (await ask(address)).startswith(b"HTTP/1.1 200")
        assert await asyncio.wait_for(read_all(held[0]), PATIENCE_SECONDS) == b""


async def test_where_every_connection_is_at_work_newcomers_get_a_503(serve: Serve) -> None:
    async with (
        serve(ConnectionLimits(max_connections=3, num_reserved=0)) as address,
        AsyncExitStack() as stack,
    ):
        for _ in range(3):
            await hold_at_work(stack, address)
        head, _, body = (await listen(address)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"Retry-After: 1" in head
    assert json.loads(body)["error"]["code"] == "overloaded"


async def test_a_health_check_of_this_machine_gets_through_where_every_connection_is_at_work(
    serve: Serve,
) -> None:
    async with (
        serve(ConnectionLimits(max_connections=3, num_reserved=2)) as address,
        AsyncExitStack() as stack,
    ):
        for _ in range(4):
            await hold_at_work(stack, address)
        assert (await ask(address)).startswith(b"HTTP/1.1 200")


async def hold_at_work(stack: AsyncExitStack, address: tuple[str, int]) -> None:
    """Begin a request and send no body; back when the service works on it, as its 100 tells."""
    head = HEAD.replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n")
    reader = await hold(stack, address, head.encode())
    assert (await asyncio.wait_for(reader.readline(), PATIENCE_SECONDS)).startswith(b"HTTP/1.1 100")


async def listen(address: tuple[str, int]) -> bytes:
    """Connect and only read."""
    reader, writer = await asyncio.open_connection(*address)
    with contextlib.closing(writer):
        return await asyncio.wait_for(read_all(reader), PATIENCE_SECONDS)


class UnreadTransport(asyncio.Transport):
    """A transport that cannot close, since its peer takes nothing of what was written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.is_aborted = asyncio.Event()

    def write(self, data: Any) -> None: ...

    def close(self) -> None: ...

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        self.is_aborted.set()


async def test_a_last_answer_that_nobody_reads_does_not_keep_its_connection() -> None:
    """It is too small to fill the service's buffer: closing waits for the reader, and must not for long."""
    limits = ConnectionLimits(idle_seconds=0.05, send_seconds=0.05)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    transport, connections = UnreadTransport(), OpenConnections(1, 0)
    connection = Connection(runner, limits, connections)
    connection.connection_made(transport)
    connection.data_received(GET)
    await asyncio.wait_for(transport.is_aborted.wait(), PATIENCE_SECONDS)
    connection.connection_lost(None)
    assert len(connections) == 0
    await runner.cleanup()
