"""Many slow connections at once: every one is closed in time, and a healthy client is never refused.

The suite holds 50 with a deadline of 3 s; `make slow-long` holds 500 for 30 s.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from fakes.hash_encoder import HashEncoder
from query_api.app import AppSettings, build_app
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, listening
from tests.query_api.http.connections.test_connections import HEAD, talk
from tests.query_api.small_index import SmallIndex

NUM_SLOW = int(os.environ.get("CLIPTIDE_TEST_SLOW_CONNECTIONS", "50"))
DEADLINE_SECONDS = 30.0 if NUM_SLOW > 50 else 3.0
GRACE_SECONDS = 20.0  # lingering, and a busy machine; unhindered it would be minutes


@pytest.fixture
async def address(small_index: SmallIndex) -> AsyncIterator[tuple[str, int]]:
    """A service whose deadlines are those of the test."""
    reader = small_index.open_reader()
    reader.reload()
    app = build_app(
        HashEncoder(),
        reader,
        CollectorRegistry(),
        AppSettings(receive_timeout_seconds=DEADLINE_SECONDS, max_concurrent_requests=8),
    )
    limits = ConnectionLimits(idle_seconds=DEADLINE_SECONDS)
    async with listening(app, Address("127.0.0.1", 0), limits, shutdown_seconds=1.0) as place:
        host, _, port = place.rpartition(":")
        yield host, int(port)


@pytest.mark.parametrize("at_once", [20, len(HEAD)], ids=["headers", "bodies"])
async def test_slow_connections_are_closed_in_time_and_a_healthy_client_is_never_refused(
    address: tuple[str, int], at_once: int
) -> None:
    done = asyncio.Event()
    healthy = asyncio.create_task(ask_until(done, address))
    seconds = await asyncio.gather(*(hold_slowly(address, at_once) for _ in range(NUM_SLOW)))
    done.set()
    statuses = await healthy
    assert max(seconds) < DEADLINE_SECONDS + GRACE_SECONDS
    assert min(seconds) > DEADLINE_SECONDS / 2
    assert len(statuses) > 10
    assert set(statuses) == {200}


async def hold_slowly(address: tuple[str, int], at_once: int) -> float:
    """Send a request, byte by byte behind its first ones, until it is cut off; return the seconds."""
    text = HEAD + " " * 1000
    began = time.monotonic()
    await talk(address, text[:at_once], *text[at_once:], every_seconds=DEADLINE_SECONDS / 30)
    return time.monotonic() - began


async def ask_until(done: asyncio.Event, address: tuple[str, int]) -> list[int]:
    statuses = []
    async with aiohttp.ClientSession() as session:
        while not done.is_set():
            async with session.get(f"http://{address[0]}:{address[1]}/v1/search?q=red") as response:
                statuses.append(response.status)
            await asyncio.sleep(0.01)
    return statuses
