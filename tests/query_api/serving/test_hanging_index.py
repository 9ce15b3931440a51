"""A file system that does not answer is noticed, and keeps nobody waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from clip_index.reading.index_reader import IndexReader
from query_api import health
from query_api.encoding.query_encoder import QUERY_ENCODER
from query_api.serving import served_index
from query_api.serving.served_index import SERVED_INDEX, ServedIndex
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService, metrics_of
from tests.query_api.small_index import OCCURRED_AT_MS, SmallIndex

Client = TestClient[Any, Any]


@pytest.fixture
def file_system(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is cleared, a look at the index does not return. `hangs` is set when one does not."""
    answers = threading.Event()
    answers.set()
    answers.hangs = threading.Event()  # type: ignore[attr-defined]
    reload = IndexReader.reload

    def look(reader: IndexReader) -> bool:
        if not answers.is_set():
            answers.hangs.set()  # type: ignore[attr-defined]
        assert answers.wait(PATIENCE_SECONDS)
        return reload(reader)

    monkeypatch.setattr(IndexReader, "reload", look)
    yield answers
    answers.set()


@pytest.fixture
async def service(
    small_index: SmallIndex, start_service: StartService, file_system: threading.Event
) -> tuple[Client, ServedIndex]:
    client = await start_service(small_index)
    assert client.app is not None
    served = client.app[SERVED_INDEX]
    served._patience_seconds = 0.05
    file_system.clear()
    assert await asyncio.to_thread(file_system.hangs.wait, PATIENCE_SECONDS)  # type: ignore[attr-defined]
    return client, served


async def error_of(client: Client, path: str) -> tuple[int, str]:
    response = await client.get(path)
    return response.status, (await response.json())["error"]["code"]


async def test_a_look_that_hangs_turns_readiness_red_and_later_liveness(
    service: tuple[Client, ServedIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = service
    assert (await client.get("/readyz")).status == 200
    monkeypatch.setattr(health, "STALLED_SECONDS", 0.0)
    assert await error_of(client, "/readyz") == (503, "not_ready")
    assert (await client.get("/livez")).status == 200
    monkeypatch.setattr(health, "HANGS_SECONDS", 0.0)
    assert await error_of(client, "/livez") == (503, "reload_stopped")


async def test_while_a_look_hangs_ages_grow_and_readiness_is_shown(
    service: tuple[Client, ServedIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, served = service
    monkeypatch.setattr(served_index, "STALLED_SECONDS", 0.0)
    for age in (100, 200):
        monkeypatch.setattr(time, "time", lambda age=age: OCCURRED_AT_MS / 1000 + age)
        served.show()
        shown = f'cliptide_query_watermark_age_seconds{{shard="content-uploads-0"}} {age}.0'
        assert shown in metrics_of(client)
    assert "cliptide_query_ready 0.0" in metrics_of(client)
    assert "cliptide_query_index_look_seconds 0.0\n" not in metrics_of(client)


async def test_the_gauges_do_not_wait_for_the_look(
    service: tuple[Client, ServedIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, served = service
    shown = asyncio.Event()
    monkeypatch.setattr(served, "show", shown.set)
    await asyncio.wait_for(shown.wait(), PATIENCE_SECONDS)


async def test_while_a_look_hangs_searches_are_answered_and_reads_are_refused(
    service: tuple[Client, ServedIndex], file_system: threading.Event
) -> None:
    client, _ = service
    assert (await client.get("/v1/search?q=red")).status == 200
    for path in ("/v1/contents/t-red", "/v1/contents/t-red"):
        assert await error_of(client, path) == (503, "reload_stopped")
    file_system.set()
    while (await client.get("/v1/contents/t-red")).status != 200:  # noqa: ASYNC110 (until the look ends)
        await asyncio.sleep(0.001)


async def test_an_encoder_that_hangs_is_not_alive(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.app is not None
    monkeypatch.setattr(client.app[QUERY_ENCODER], "_encoding_since", time.monotonic() - health.HANGS_SECONDS)
    assert await error_of(client, "/livez") == (503, "encoder_stopped")
