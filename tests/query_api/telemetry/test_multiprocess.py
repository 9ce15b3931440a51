"""Several processes share their metrics: gauges of those that have ended vanish, and their counters stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from query_api.telemetry.multiprocess import alive, is_alive, num_alive, scrape_registry

PROCESS = """
import sys, time
from pathlib import Path
from prometheus_client import CollectorRegistry
from query_api.telemetry.metrics import Metrics
from query_api.telemetry.multiprocess import scrape_registry
registry = CollectorRegistry()
with scrape_registry(registry, Path(sys.argv[1])):
    metrics = Metrics(registry)
    metrics.open_connections.set(7)
    metrics.connections.labels("accepted").inc(5)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start_one() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path)],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start_one
    for process in started:
        process.kill()
        with process:  # closes its pipes
            process.wait()


def test_a_killed_process_leaves_its_counters_and_no_gauge_at_the_next_scrape(
    tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    first, second = start(), start()
    with scrape_registry(CollectorRegistry(), tmp_path) as registry:
        assert registry.get_sample_value("cliptide_query_open_connections") == 14.0
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert registry.get_sample_value("cliptide_query_open_connections") == 7.0
        assert registry.get_sample_value("cliptide_query_connections_total", {"status": "accepted"}) == 10.0
        assert second.stdin is not None
        second.stdin.close()
        second.wait()
        assert registry.get_sample_value("cliptide_query_open_connections") is None
        assert registry.get_sample_value("cliptide_query_connections_total", {"status": "accepted"}) == 10.0
    assert not list(tmp_path.glob("*.lock"))
    assert not list(tmp_path.glob("gauge_*"))


def test_a_number_that_another_process_has_now_does_not_keep_the_gauges_of_the_dead(tmp_path: Path) -> None:
    alive_pid = os.getppid()
    (tmp_path / f"gauge_livesum_{alive_pid}.db").write_bytes(bytes(4096))
    (tmp_path / f"alive_{alive_pid}.lock").touch()  # nobody holds it
    assert not is_alive(tmp_path, alive_pid)
    with scrape_registry(CollectorRegistry(), tmp_path) as registry:
        generate_latest(registry)
    assert not list(tmp_path.glob("gauge_*"))


def test_gauges_of_an_earlier_release_stay_while_its_process_lives(tmp_path: Path) -> None:
    file = tmp_path / f"gauge_livesum_{os.getppid()}.db"
    file.write_bytes(bytes(4096))
    with scrape_registry(CollectorRegistry(), tmp_path) as registry:
        generate_latest(registry)
    assert file.exists()


def test_a_file_that_a_killed_process_left_unfinished_does_not_spoil_the_scrape(
    tmp_path: Path, start: Callable[[], subprocess.Popen[str]]
) -> None:
    start()
    (tmp_path / "counter_1.db").write_bytes(b"")
    (tmp_path / "histogram_1.db").write_bytes(b"\xff" * 64)
    with scrape_registry(CollectorRegistry(), tmp_path) as registry:
        assert registry.get_sample_value("cliptide_query_open_connections") == 7.0


def test_processes_that_share_the_port_are_counted_and_the_dead_are_not(tmp_path: Path) -> None:
    assert num_alive(tmp_path) == 1  # this one, which has written nothing yet
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (tmp_path / f"gauge_livemax_{dead.pid}.db").touch()
    (tmp_path / f"gauge_livemax_{os.getpid()}.db").touch()
    (tmp_path / f"gauge_livemin_{os.getppid()}.db").touch()  # of an earlier release: it has no lock
    with alive(tmp_path):
        assert num_alive(tmp_path) == 2
