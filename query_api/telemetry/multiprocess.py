"""Metrics of several processes that share a port.

Each process writes its metrics to files. The process that is scraped adds up the files of all.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector


@contextmanager
def scrape_registry(own: CollectorRegistry, directory: Path | None) -> Iterator[CollectorRegistry]:
    """Yield the registry that a scrape reads: this process's own, or that of all files in the directory.

    The gauges of processes that have ended are removed. Their counters stay, because a counter
    must never fall.
    """
    if directory is None:
        yield own
        return
    for pid in _pids_with_gauges(directory):
        if not Path(f"/proc/{pid}").exists():
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    registry.register(_Present(MultiProcessCollector(None, str(directory))))  # type: ignore[no-untyped-call]
    try:
        yield registry
    finally:
        mark_process_dead(os.getpid(), str(directory))  # type: ignore[no-untyped-call]


class _Present(Collector):
    """What a collector yields, without the series that are NaN, because those have ended."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        for metric in self._collector.collect():
            metric.samples = [sample for sample in metric.samples if not math.isnan(sample.value)]
            yield metric


def _pids_with_gauges(directory: Path) -> set[int]:
    names = (re.fullmatch(r"gauge_live\w*_(\d+)\.db", path.name) for path in directory.iterdir())
    return {int(name[1]) for name in names if name}
