"""A service that stops: red first, then no new connections, and every request that has begun is answered."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import TypeAlias

import pytest
from prometheus_client import CollectorRegistry

from fakes.hash_encoder import HashEncoder
from query_api.app import AppSettings, build_app
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, listening
from query_api.http.connections.stopping import STOPPING, StopSignals
from query_api.settings import QueryApiSettings
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

BODY = json.dumps({"text": "red"})
HEAD = (
    "POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n"
)
REQUEST = HEAD + BODY


class Service:
    """A service on a socket, which a test can begin to stop while it goes on talking to it."""

    def __init__(self, small_index: SmallIndex, shutdown_seconds: float) -> None:
        reader = small_index.open_reader()
        reader.reload()
        self.app = build_app(HashEncoder(), reader, CollectorRegistry(), AppSettings(has_percentiles=False))
        self._seconds = shutdown_seconds
        self._stack = AsyncExitStack()
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        place = listening(self.app, Address("127.0.0.1", 0), ConnectionLimits(), self._seconds)
        host, _, port = (await self._stack.enter_async_context(place)).rpartition(":")
        self.address = host, int(port)

    async def connect(self, sent: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*self.address)
        self._writers.append(writer)
        writer.write(sent.encode())
        if not sent:
            writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await self.answer(reader)
        return reader, writer

    @staticmethod
    async def answer(reader: asyncio.StreamReader) -> str:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        length = head.decode().partition("Content-Length: ")[2].split()[0]
        await reader.readexactly(int(length))
        return head.decode()

    def stop(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._stack.aclose())

    async def end(self) -> None:
        for writer in self._writers:
            writer.close()
        await self._stack.aclose()


Start: TypeAlias = Callable[..., Awaitable[Service]]


@pytest.fixture
async def start(small_index: SmallIndex) -> AsyncIterator[Start]:
    """A factory of running services."""
    started: list[Service] = []

    async def start_one(shutdown_seconds: float = PATIENCE_SECONDS) -> Service:
        service = Service(small_index, shutdown_seconds)
        started.append(service)
        await service.start()
        return service

    yield start_one
    for service in started:
        await service.end()


CUTS = {"in its headers": 20, "after its headers": len(HEAD), "in its body": len(HEAD) + 5}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_a_request_that_is_still_arriving_when_the_service_stops_is_answered(
    start: Start, cut: int
) -> None:
    running = await start()
    reader, writer = await running.connect(REQUEST[:cut])
    await asyncio.sleep(0.1)  # its first bytes are there
    stopped = running.stop()
    await asyncio.sleep(0.1)
    assert not stopped.done()
    writer.write(REQUEST[cut:].encode())
    head = await running.answer(reader)
    assert head.startswith("HTTP/1.1 200")
    assert "Connection: close" in head
    await asyncio.wait_for(stopped, PATIENCE_SECONDS)


async def test_a_request_that_never_arrives_holds_the_stop_no_longer_than_the_time_for_it(
    start: Start,
) -> None:
    running = await start(0.2)
    await running.connect(HEAD)
    await asyncio.sleep(0.1)
    await asyncio.wait_for(running.stop(), PATIENCE_SECONDS)


async def test_idle_connections_and_streams_do_not_hold_the_stop(start: Start) -> None:
    running = await start()
    await running.connect()
    stream, _ = await running.connect("GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await stream.readuntil(b"event: index")
    await asyncio.wait_for(running.stop(), PATIENCE_SECONDS / 2)


async def test_while_it_drains_it_is_not_ready_and_answers_kept_and_new_connections(
    start: Start,
) -> None:
    running = await start()
    kept_reader, kept_writer = await running.connect()
    running.app[STOPPING].begin()
    kept_writer.write(REQUEST.encode())
    new_reader, _ = await running.connect(REQUEST)
    health_reader, _ = await running.connect("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    answers = [await running.answer(reader) for reader in (kept_reader, new_reader, health_reader)]
    assert [answer[9:12] for answer in answers] == ["200", "200", "503"]
    assert all("Connection: close" in answer for answer in answers)
    await asyncio.wait_for(running.stop(), PATIENCE_SECONDS)


async def test_a_service_that_stops_is_alive_and_not_ready(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index)
    assert client.app is not None
    client.app[STOPPING].begin()
    ready, alive = await client.get("/readyz"), await client.get("/livez")
    assert (ready.status, alive.status) == (503, 200)
    assert (await ready.json())["error"]["message"] == "the service is stopping"


async def drained(signals: StopSignals) -> bool:
    """Whether a drain of a minute is over at once."""
    try:
        await asyncio.wait_for(signals.drain(60.0), 0.05)
    except asyncio.TimeoutError:
        return False
    return True


@pytest.mark.parametrize(
    ("numbers", "is_drained"),
    [
        ([signal.SIGTERM], False),
        ([signal.SIGINT], True),
        ([signal.SIGTERM, signal.SIGTERM], True),
        ([signal.SIGTERM, signal.SIGINT], True),
    ],
    ids=["SIGTERM", "SIGINT", "SIGTERM twice", "SIGINT after SIGTERM"],
)
async def test_sigterm_drains_and_a_second_signal_or_sigint_ends_the_drain(
    numbers: list[int], is_drained: bool
) -> None:
    signals = StopSignals()
    for number in numbers:
        signals.receive(number)
    await asyncio.wait_for(signals.wait(), PATIENCE_SECONDS)
    assert await drained(signals) is is_drained


async def test_a_drain_ends_by_itself() -> None:
    await asyncio.wait_for(StopSignals().drain(0.0), PATIENCE_SECONDS)


def test_connections_are_kept_longer_than_the_minute_that_load_balancers_keep_theirs() -> None:
    assert QueryApiSettings().keepalive_seconds > 60
    assert ConnectionLimits().idle_seconds > 60
