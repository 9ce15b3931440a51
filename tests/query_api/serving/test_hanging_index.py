"""A file system that does not answer is noticed, and keeps nobody waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from clip_index.reading.index_reader import IndexReader
from query_api import health
from query_api.serving import background_job, served_index, workers
from query_api.serving.background_job import BACKGROUND_JOBS, BackgroundJob
from query_api.serving.request_slots import REQUEST_SLOTS
from query_api.serving.scrub import Scrub
from query_api.serving.served_index import ServedIndex
from query_api.serving.workers import WORKERS, Workers
from query_api.swap.index_swap import INDEX_SWAP
from query_api.telemetry.metrics import METRICS
from query_api.telemetry.metrics_app import build_metrics_app
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
    served = client.app[INDEX_SWAP].pair.index
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
    monkeypatch.setattr(
        client.app[INDEX_SWAP].pair.encoder, "_encoding_since", time.monotonic() - health.HANGS_SECONDS
    )
    assert await error_of(client, "/livez") == (503, "encoder_stopped")


@pytest.fixture
async def stuck(
    small_index: SmallIndex, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Client]:
    """A service whose two worker threads hang in one call each."""
    client = await start_service(small_index, num_workers=2, answer_seconds=0.1, max_wait_seconds=0.0)
    assert client.app is not None
    gate, running = threading.Event(), threading.Semaphore(0)
    for _ in range(2):
        client.app[WORKERS].submit(lambda: (running.release(), gate.wait(PATIENCE_SECONDS)))
    for _ in range(2):
        assert await asyncio.to_thread(running.acquire, timeout=PATIENCE_SECONDS)
    yield client
    gate.set()


async def test_a_request_that_is_not_answered_in_time_is_a_503_and_holds_no_slot(stuck: Client) -> None:
    assert stuck.app is not None
    assert await error_of(stuck, "/v1/search?q=red") == (503, "not_answered_in_time")
    assert stuck.app[REQUEST_SLOTS].num_working == 0
    assert (await stuck.get("/v1/index")).status == 200


async def test_while_every_worker_is_stuck_requests_are_refused_at_once_and_health_is_red(
    stuck: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await stuck.get("/livez")).status == 200
    monkeypatch.setattr(workers, "STUCK_SECONDS", 0.0)
    assert await error_of(stuck, "/v1/search?q=red") == (503, "workers_stuck")
    assert await error_of(stuck, "/readyz") == (503, "not_ready")
    assert (await stuck.get("/livez")).status == 200
    monkeypatch.setattr(health, "HANGS_SECONDS", 0.0)
    assert await error_of(stuck, "/livez") == (503, "workers_stuck")


async def test_one_worker_of_several_that_is_stuck_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.app is not None
    monkeypatch.setattr(client.app[WORKERS], "num_running_for", lambda _: 1)
    answer = await (await client.get("/readyz")).json()
    assert "1 of " in answer["problems"][0]


async def test_the_end_does_not_wait_for_a_worker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "END_SECONDS", 0.05)
    pool, gate, done = Workers(1), threading.Event(), threading.Event()
    async with pool.until_end():
        pool.submit(gate.wait, PATIENCE_SECONDS)
    assert pool.is_busy
    gate.set()
    other = Workers(1)
    async with other.until_end():
        other.submit(done.set)
    assert done.is_set()


async def test_a_background_job_that_has_ended_or_hangs_is_told_and_the_service_is_ready(
    small_index: SmallIndex, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Scrub, "scrub_once", fail)
    client = await start_service(small_index, scrub_seconds=60.0)
    assert client.app is not None
    jobs = client.app[BACKGROUND_JOBS]
    while not jobs.problems:  # noqa: ASYNC110 (until the job has ended)
        await asyncio.sleep(0.005)
    answer = await client.get("/readyz")
    assert (answer.status, (await answer.json())["problems"]) == (
        200,
        ["the scrub job has ended; the log says why"],
    )


async def test_a_background_job_that_hangs_in_a_call_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    job, gate, began = BackgroundJob("reader"), threading.Event(), asyncio.Event()
    monkeypatch.setattr(background_job, "HANGS_SECONDS", 0.01)

    async def loop() -> None:
        began.set()
        await job.run(gate.wait, PATIENCE_SECONDS)
        await asyncio.Event().wait()

    async with job.running(loop()):
        await began.wait()
        while job.problem is None:  # noqa: ASYNC110 (nobody is told)
            await asyncio.sleep(0.005)
        assert "the reader job has not turned for" in job.problem
        gate.set()
        while job.problem is not None:  # noqa: ASYNC110 (nobody is told)
            await asyncio.sleep(0.005)


async def test_ages_are_computed_when_they_are_scraped(
    aiohttp_client: Any, service: tuple[Client, ServedIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, served = service
    assert client.app is not None
    app = build_metrics_app(client.app[METRICS].registry, refresh=served.show)
    scraper = await aiohttp_client(app)
    for age in (100, 200):
        monkeypatch.setattr(time, "time", lambda age=age: OCCURRED_AT_MS / 1000 + age)
        scraped = await (await scraper.get("/metrics")).text()
        assert f'cliptide_query_watermark_age_seconds{{shard="content-uploads-0"}} {age}.0' in scraped
