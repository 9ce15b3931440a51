"""What the health server answers, and when it turns red."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from consumer.health import HealthCheck, HealthServer
from consumer.pipeline import Pipeline
from consumer.telemetry.metrics import Metrics
from tests.consumer.running import PATIENCE_SECONDS, World, eventually, upload


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@contextmanager
def serving(pipeline: Pipeline, metrics: Metrics, stalled_after: float = 60.0) -> Iterator[int]:
    check = HealthCheck(pipeline, stalled_after)
    server = HealthServer("127.0.0.1", 0, check=check, registry=metrics.registry)
    server.start()
    try:
        yield server.port
    finally:
        server.close()


def test_a_running_consumer_is_live_ready_and_measured(world: World) -> None:
    with world.running() as pipeline, serving(pipeline, world.metrics) as port:
        world.wait_committed(world.publish(upload("a")))
        assert get(port, "/livez") == (200, '{"status": "ok", "problems": []}')
        assert get(port, "/readyz")[0] == 200
        status, metrics = get(port, "/metrics")
        assert status == 200
        assert 'cliptide_records_total{status="indexed"} 1.0' in metrics
        assert 'cliptide_commits_total{shard="uploads-0"} 1.0' in metrics
        eventually(lambda: 'cliptide_lag_records{shard="uploads-0"} 0.0' in get(port, "/metrics")[1])
        assert get(port, "/else")[0] == 404


def test_a_page_that_gives_its_name_this_address_is_told_nothing(world: World) -> None:
    with serving(world.build(), world.metrics) as port:
        for path in ("/livez", "/readyz", "/metrics"):
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}{path}", headers={"Host": "evil.example"}
            )
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=PATIENCE_SECONDS)
            with caught.value as error:
                assert (error.code, error.read()) == (403, b'{"error": "unknown_host"}')


def test_readiness_and_free_space_are_asked_for_at_every_scrape(tmp_path: Path) -> None:
    metrics, is_ready = Metrics(), True
    metrics.watch(is_ready=lambda: is_ready, index_root=tmp_path)
    assert metrics.registry.get_sample_value("cliptide_ready") == 1.0
    is_ready = False
    assert metrics.registry.get_sample_value("cliptide_ready") == 0.0
    free = metrics.registry.get_sample_value("cliptide_index_free_bytes")
    assert free is not None
    assert 0 < free <= shutil.disk_usage(tmp_path).total


def test_a_disk_that_does_not_answer_leaves_the_scrape_whole(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.watch(is_ready=lambda: False, index_root=tmp_path / "gone")
    scraped = generate_latest(metrics.registry).decode()
    assert "cliptide_index_free_bytes NaN" in scraped
    assert "cliptide_ready 0.0" in scraped


def test_a_flood_makes_readiness_red(world: World) -> None:
    for _ in range(200):
        world.append(b"x", b"garbage")
    pipeline = world.build()
    pipeline.start()
    with serving(pipeline, world.metrics) as port:
        assert pipeline.wait(PATIENCE_SECONDS)
        status, body = get(port, "/readyz")
    assert status == 503
    assert "were set aside" in json.dumps(json.loads(body)["problems"])
    with pytest.raises(Exception, match="were set aside"):
        pipeline.finish()


def test_a_stopped_consumer_is_neither_live_nor_ready(world: World) -> None:
    with world.running() as pipeline:
        world.wait_committed(world.publish(upload("a")))
    with serving(pipeline, world.metrics) as port:
        assert get(port, "/livez")[0] == 503
        assert "stopping" in get(port, "/readyz")[1]


def test_a_consumer_that_no_longer_polls_is_not_live(world: World) -> None:
    with world.running() as pipeline, serving(pipeline, world.metrics, stalled_after=0.0) as port:
        status, body = get(port, "/livez")
    assert status == 503
    assert "no poll for" in body


def test_a_shard_that_is_given_away_is_no_longer_measured(world: World) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
    assert world.metrics.registry.get_sample_value("cliptide_generation", {"shard": "uploads-0"}) is None
