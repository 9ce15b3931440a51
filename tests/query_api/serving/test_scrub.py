"""Served files are read again, and what changed on the disk is told."""

from __future__ import annotations

import asyncio
import time
from concurrent import futures
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from clip_index.reading.index_reader import IndexReader
from query_api.serving.scrub import Scrub
from query_api.telemetry.metrics import Metrics
from tests.query_api.conftest import StartService, metrics_of
from tests.query_api.small_index import SmallIndex


@pytest.fixture
def reader(small_index: SmallIndex) -> IndexReader:
    reader = small_index.open_reader()
    reader.reload()
    return reader


def outcomes(registry: CollectorRegistry) -> dict[str, float]:
    names = ("good", "damaged", "gone", "unreadable")
    values = {
        n: registry.get_sample_value("cliptide_query_scrubbed_files_total", {"status": n}) for n in names
    }
    assert None not in values.values()
    return {name: value for name, value in values.items() if value}


def flip_a_bit(path: Path) -> None:
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_all_files_are_read_and_told_by_outcome(small_index: SmallIndex, reader: IndexReader) -> None:
    small_index.commit(0, small_index.text("third", "a file of its own"))
    reader.reload()
    registry, files = CollectorRegistry(), reader.served_files()
    scrub = Scrub(reader, Metrics(registry), interval_seconds=0.01)
    scrub.scrub_once(files)
    assert outcomes(registry) == {"good": len(files)}
    first, second, third = (path for path in files if path.suffix == ".pack")
    flip_a_bit(first)
    flip_a_bit(second)
    third.unlink()
    scrub.scrub_once(files)
    assert outcomes(registry) == {"good": 2 * len(files) - 3, "damaged": 2, "gone": 1}


def test_a_pass_is_spread_over_its_interval_and_ends_with_the_service(reader: IndexReader) -> None:
    scrub = Scrub(reader, Metrics(CollectorRegistry()), interval_seconds=3600.0)
    with ThreadPoolExecutor(1) as threads:
        under_way = threads.submit(scrub.scrub_once, reader.served_files())
        with pytest.raises(futures.TimeoutError):
            under_way.result(0.2)
        scrub.stop()
        with pytest.raises(CancelledError):
            under_way.result(60)


async def test_a_service_scrubs_what_it_serves(small_index: SmallIndex, start_service: StartService) -> None:
    client = await start_service(small_index, scrub_seconds=0.01)
    deadline = time.monotonic() + 60
    while 'scrubbed_files_total{status="good"} 0.0' in metrics_of(client):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert 'scrubbed_files_total{status="damaged"} 0.0' in metrics_of(client)
