"""What the metrics show of contents that become searchable."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from clip_index.searching.searcher import Searcher
from clip_index.views.snapshot import ShardSnapshot
from query_api.serving.index_metrics import observe_newcomers, show_generations, show_watermark_ages
from query_api.telemetry.metrics import METRICS, Metrics
from schemas.clock_time import ms_from_time, time_from_record_timestamp
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex


def test_an_upload_without_a_time_is_not_observed() -> None:
    now_ms = round(time.time() * 1000)
    absent = [ms_from_time(time_from_record_timestamp(timestamp_ms)) for timestamp_ms in (-1, -(2**63))]
    newcomers = np.array([*absent, now_ms - 1000], np.int64)
    searcher = cast(Any, SimpleNamespace(newcomers_since=lambda former: newcomers))
    registry = CollectorRegistry()
    observe_newcomers(Metrics(registry), searcher, searcher)
    assert registry.get_sample_value("cliptide_searchable_after_event_seconds_count") == 1
    seconds = registry.get_sample_value("cliptide_searchable_after_event_seconds_sum")
    assert seconds == pytest.approx(1.0, abs=30.0)


def _searcher(**shards: ShardSnapshot) -> Any:
    return cast(
        Any, SimpleNamespace(shards={name.replace("_", "-"): shard for name, shard in shards.items()})
    )


def _shard(watermark_ms: int | None = 1) -> ShardSnapshot:
    return ShardSnapshot(3, 0, 9, watermark_ms, {"image": 5}, 2, size_bytes=700)


def _of_shards(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Return the shards of each metric that has a label of that name."""
    shards: dict[str, set[str]] = {}
    for metric in registry.collect():
        for sample in metric.samples:
            if "shard" in sample.labels:
                shards.setdefault(sample.name, set()).add(sample.labels["shard"])
    return shards


def test_only_the_shards_that_have_changed_are_shown_again() -> None:
    """A process with many shards is told of a new generation of one of them dozens of times a second."""
    registry = CollectorRegistry()
    metrics, former = Metrics(registry), _searcher(uploads_0=_shard(), uploads_1=_shard())
    show_generations(metrics, former)
    metrics.segments.labels("uploads-0").set(-1)
    metrics.segments.labels("uploads-1").set(-1)
    show_generations(
        metrics, _searcher(uploads_0=former.shards["uploads-0"], uploads_1=_shard(watermark_ms=2)), former
    )
    shown = [
        registry.get_sample_value("cliptide_query_segments", {"shard": f"uploads-{n}"}) for n in range(2)
    ]
    assert shown == [-1, 2]


def test_contents_bytes_and_segments_of_each_shard_are_shown() -> None:
    registry = CollectorRegistry()
    show_generations(Metrics(registry), _searcher(uploads_0=_shard()))
    value, labels = registry.get_sample_value, {"shard": "uploads-0"}
    assert value("cliptide_query_contents", {**labels, "modality": "image"}) == 5
    assert value("cliptide_query_contents", {**labels, "modality": "text"}) == 0
    assert value("cliptide_query_index_bytes", labels) == 700
    assert value("cliptide_query_segments", labels) == 2


def test_an_index_with_other_shards_ends_every_gauge_of_the_former_shards() -> None:
    registry = CollectorRegistry()
    metrics, former, newer = Metrics(registry), _searcher(uploads_0=_shard()), _searcher(others_0=_shard())
    show_generations(metrics, former)
    show_watermark_ages(metrics, former)
    shown = _of_shards(registry)
    show_generations(metrics, newer, former)
    show_watermark_ages(metrics, newer)
    assert _of_shards(registry) == {name: {"others-0"} for name in shown}


def test_a_shard_that_was_built_again_has_no_age_before_its_first_watermark() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    show_watermark_ages(metrics, _searcher(uploads_0=_shard()))
    show_watermark_ages(metrics, _searcher(uploads_0=_shard(watermark_ms=None)))
    assert "cliptide_query_watermark_age_seconds" not in _of_shards(registry)


_SHARED = """
import os, pathlib
from prometheus_client import CollectorRegistry, generate_latest
from query_api.telemetry.metrics import METRICS, Metrics
from query_api.telemetry.multiprocess import scrape_registry
own = CollectorRegistry()
with scrape_registry(own, pathlib.Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])) as scraped:
    metrics = Metrics(own)
    metrics.segments.labels("former-0").set(2)
    metrics.segments.labels("newer-0").set(3)
    metrics.forget_shard("former-0")
    print(generate_latest(scraped).decode())
"""


def test_processes_that_share_their_metrics_end_the_gauges_of_former_shards_too(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _SHARED], env=environment, capture_output=True, text=True, check=False
    )
    assert 'cliptide_query_segments{shard="newer-0"} 3.0' in done.stdout, done.stderr
    assert "former-0" not in done.stdout


async def test_the_age_of_new_contents_is_observed_outside_of_the_event_loop(
    small_index: SmallIndex, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    newcomers_since = Searcher.newcomers_since

    def note(searcher: Searcher, former: Searcher) -> Any:
        threads.append(threading.current_thread().name)
        return newcomers_since(searcher, former)

    monkeypatch.setattr(Searcher, "newcomers_since", note)
    client = await start_service(small_index)
    small_index.commit(0, small_index.text("t-new", "a new dress"))
    wanted = {"text": "a dress", "min_offsets": {"content-uploads-0": 4}, "timeout_ms": 60_000}
    assert (await client.post("/v1/search", json=wanted)).status == 200
    assert threads
    assert threading.current_thread().name not in threads
    assert client.app is not None
    count = client.app[METRICS].registry.get_sample_value("cliptide_searchable_after_event_seconds_count")
    assert count == 1
