"""Metrics of several processes that share a port.

Each process writes its metrics to files. The process that is scraped adds up the files of all. At each
scrape it removes the gauges of processes that have ended, also of those that were killed. Their counters
stay, because a counter must never fall.
"""

from __future__ import annotations

import fcntl
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

log = structlog.get_logger()
_UNREADABLE = (OSError, RuntimeError, ValueError, struct.error)  # of a process that was killed while it wrote


@contextmanager
def scrape_registry(own: CollectorRegistry, directory: Path | None) -> Iterator[CollectorRegistry]:
    """Yield the registry that a scrape reads: this process's own, or that of all files in the directory."""
    if directory is None:
        yield own
        return
    remove_gauges(directory, os.getpid())  # of an earlier process of the same number
    with alive(directory):
        registry = CollectorRegistry()
        registry.register(LiveProcesses(directory))
        try:
            yield registry
        finally:
            remove_gauges(directory, os.getpid())


@contextmanager
def alive(directory: Path) -> Iterator[None]:
    """Tell other processes that this one lives, by a lock that ends with the process however it ends.

    A lock and not the process's number: numbers are used again, and processes in other containers
    do not see them.
    """
    path = _lock_of(directory, os.getpid())
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    path.unlink(missing_ok=True)


def is_alive(directory: Path, pid: int) -> bool:
    """Whether the process holds its lock. One without a lock file is of an earlier release."""
    try:
        with _lock_of(directory, pid).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return Path(f"/proc/{pid}").exists()
    except BlockingIOError:
        return True
    return False


def num_alive(directory: Path) -> int:
    """Count the processes that share the directory and live, at least this one."""
    return max(1, sum(is_alive(directory, pid) for pid in pids_with_gauges(directory)))


class LiveProcesses(Collector):
    """Collects the metrics in a directory, without the gauges of processes that have ended."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._collector = MultiProcessCollector(None, str(directory))  # type: ignore[no-untyped-call]

    def collect(self) -> Iterable[Metric]:
        for pid in pids_with_gauges(self._directory):
            if not is_alive(self._directory, pid):
                remove_gauges(self._directory, pid)
                _lock_of(self._directory, pid).unlink(missing_ok=True)
        try:
            return self._merged(sorted(self._directory.glob("*.db")))
        except _UNREADABLE:
            return self._merged([path for path in sorted(self._directory.glob("*.db")) if _is_readable(path)])

    def _merged(self, files: Iterable[Path]) -> Iterable[Metric]:
        merged: Iterable[Metric] = self._collector.merge(list(map(str, files)))  # type: ignore[no-untyped-call]
        return map(_without_ended, merged)


def _without_ended(metric: Metric) -> Metric:
    """Leave out the series that are NaN, because those have ended."""
    metric.samples = [sample for sample in metric.samples if not math.isnan(sample.value)]
    return metric


def pids_with_gauges(directory: Path) -> set[int]:
    names = (re.fullmatch(r"gauge_live\w*_(\d+)\.db", path.name) for path in directory.iterdir())
    return {int(name[1]) for name in names if name}


def remove_gauges(directory: Path, pid: int) -> None:
    for path in directory.glob(f"gauge_live*_{pid}.db"):
        path.unlink(missing_ok=True)  # another process may be scraped at the same time


def _lock_of(directory: Path, pid: int) -> Path:
    return directory / f"alive_{pid}.lock"


def _is_readable(path: Path) -> bool:
    try:
        MultiProcessCollector.merge([str(path)])  # type: ignore[no-untyped-call]
    except _UNREADABLE as error:
        log.warning("a file of metrics cannot be read", path=str(path), error=str(error))
        return False
    return True
