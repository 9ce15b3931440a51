"""What every service tells Prometheus of its program and its process."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

from service.program_metrics import describe_program, measure_process


@pytest.fixture
def scraped() -> Iterator[str]:
    registry = CollectorRegistry()
    Counter("lamps_total", "Lamps.", registry=registry).inc()
    describe_program(registry)
    measure_process(registry)
    yield generate_latest(registry).decode()
    prometheus_client.enable_created_metrics()


def test_the_version_that_runs_is_exported(scraped: str) -> None:
    assert f'cliptide_build_info{{version="{version("cliptide")}"}} 1.0' in scraped
    assert "python_info{" in scraped


def test_memory_processor_time_and_files_of_the_process_are_exported(scraped: str) -> None:
    for name in ("resident_memory_bytes", "cpu_seconds_total", "open_fds", "start_time_seconds"):
        assert f"\nprocess_{name} " in scraped


def test_no_counter_is_accompanied_by_its_time_of_creation(scraped: str) -> None:
    assert "lamps_total 1.0" in scraped
    assert "_created" not in scraped
