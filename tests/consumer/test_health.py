"""What the health server answers, and when it turns red."""

from __future__ import annotations

import errno
import json
import math
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from clip_index.writing.shard_writer import ShardWriter
from consumer.health import HealthCheck, HealthServer
from consumer.pipeline import Pipeline
from consumer.preparation.step_pool import StepPool
from consumer.quarantine.inflight import InFlightFile
from consumer.references.fetching import References
from consumer.telemetry import disk_space
from consumer.telemetry.metrics import Metrics
from event_log.errors import RecordUnreadable, TransientLogError
from tests.consumer.running import PATIENCE_SECONDS, TOPIC, World, eventually, upload


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
        assert 'cliptide_consumer_records_total{status="indexed"} 1.0' in metrics
        assert 'cliptide_consumer_commits_total{shard="uploads-0"} 1.0' in metrics
        eventually(lambda: 'cliptide_consumer_lag_records{shard="uploads-0"} 0.0' in get(port, "/metrics")[1])
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
    assert metrics.registry.get_sample_value("cliptide_consumer_ready") == 1.0
    is_ready = False
    assert metrics.registry.get_sample_value("cliptide_consumer_ready") == 0.0
    free = metrics.registry.get_sample_value("cliptide_consumer_index_free_bytes")
    assert free is not None
    assert 0 < free <= shutil.disk_usage(tmp_path).total
    total = metrics.registry.get_sample_value("cliptide_consumer_index_disk_bytes")
    assert total == shutil.disk_usage(tmp_path).total


def test_a_disk_that_does_not_answer_leaves_the_scrape_whole(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.watch(is_ready=lambda: False, index_root=tmp_path / "gone")
    scraped = generate_latest(metrics.registry).decode()
    assert "cliptide_consumer_index_free_bytes NaN" in scraped
    assert "cliptide_consumer_index_disk_bytes NaN" in scraped
    assert "cliptide_consumer_ready 0.0" in scraped


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
    assert (
        world.metrics.registry.get_sample_value("cliptide_consumer_generation", {"shard": "uploads-0"})
        is None
    )


def fail_read_only(*_: object, **__: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


def stays_red(check: HealthCheck, looks: int = 40) -> bool:
    """Whether readiness is red at each of many looks, some milliseconds apart."""
    reds = []
    for _ in range(looks):
        reds.append(bool(check.look().not_ready))
        time.sleep(0.003)
    return all(reds)


def lag_records(world: World) -> float:
    labels = {"shard": f"{TOPIC}-0"}
    return world.metrics.registry.get_sample_value("cliptide_consumer_lag_records", labels) or 0.0


def test_while_no_record_can_be_named_in_flight_readiness_is_red_and_the_lag_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.running() as pipeline:
        check = HealthCheck(pipeline, 60.0)
        world.wait_committed(world.publish(upload("a")))
        with monkeypatch.context() as patched:
            patched.setattr(InFlightFile, "name", fail_read_only)
            world.publish(upload("b"))
            eventually(lambda: not check.is_ready())
            assert stays_red(check)
            assert any("Read-only file system" in problem for problem in check.look().not_ready)
            end = world.publish(upload("c"))
            eventually(lambda: lag_records(world) == 2)
        world.wait_committed(end)
        eventually(check.is_ready)


def test_readiness_stays_red_while_an_idle_shard_cannot_renew_its_watermark(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.running() as pipeline:
        check = HealthCheck(pipeline, 60.0)
        world.wait_committed(world.publish(upload("a")))
        with monkeypatch.context() as patched:
            patched.setattr(ShardWriter, "renew_watermark", fail_read_only)
            eventually(lambda: not check.is_ready())
            assert stays_red(check)
        eventually(check.is_ready)


def test_while_the_log_does_not_answer_readiness_is_red_and_the_lag_in_seconds_grows(world: World) -> None:
    with world.running() as pipeline:
        check = HealthCheck(pipeline, 60.0)
        world.wait_committed(world.publish(upload("a")))
        eventually(lambda: world.lag_seconds() == 0.0)
        world.log.fail_next("log_range", TransientLogError("away"), times=20)
        eventually(lambda: (world.lag_seconds() or 0.0) > 0.1)
        assert check.look().not_ready == [f"waiting for log ({TOPIC}-0): away"]
        eventually(lambda: check.is_ready() and world.lag_seconds() == 0.0)


def test_a_takeover_that_waits_for_its_disk_makes_readiness_red(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(InFlightFile, "recover", fail_read_only)
        pipeline = world.build()
        pipeline.start()
        check = HealthCheck(pipeline, 60.0)
        eventually(lambda: not check.is_ready())
        assert stays_red(check)
    eventually(check.is_ready)
    pipeline.finish()


def test_a_record_that_cannot_be_read_holds_its_partition_and_is_named_until_it_is_passed(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, num_partitions=2)
    unreadable = RecordUnreadable(TOPIC, 0, 1, "bad zstd", way_on="raise a property")
    with world.running() as pipeline:
        check = HealthCheck(pipeline, 60.0)
        world.wait_committed(world.publish(upload("a"), 0), 0)
        world.log.fail_next("poll", unreadable, times=20)
        eventually(lambda: not check.is_ready())
        assert stays_red(check, looks=5)
        assert f"{TOPIC}-0@1: the record cannot be read: bad zstd: raise a property" in str(check.look())
        world.wait_committed(world.publish(upload("b"), 1), 1)
        assert not check.is_ready()
        world.wait_committed(world.publish(upload("c"), 0), 0)
        eventually(check.is_ready)


def stalled(check: HealthCheck) -> set[str]:
    return {problem.split()[1] for problem in check.look().not_ready if "has not turned" in problem}


def test_a_loop_that_hangs_is_named_by_readiness_and_later_by_liveness(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = threading.Event()
    commit = ShardWriter.commit

    def hang(*args: Any, **kwargs: Any) -> Any:
        assert answers.wait(PATIENCE_SECONDS)
        return commit(*args, **kwargs)

    monkeypatch.setattr(ShardWriter, "commit", hang)
    with world.running() as pipeline:
        patient, impatient = HealthCheck(pipeline, 60.0), HealthCheck(pipeline, 0.5)
        end = world.publish(upload("a"))
        eventually(lambda: "writer" in stalled(impatient))
        assert not patient.look().not_ready
        assert "the writer loop has not turned" not in str(impatient.look().not_live)
        eventually(lambda: "the writer loop has not turned" in str(impatient.look().not_live))
        answers.set()
        world.wait_committed(end)
        eventually(lambda: not stalled(impatient))


def test_loops_that_have_nothing_to_do_turn(world: World) -> None:
    with world.running() as pipeline:
        world.wait_committed(world.publish(upload("a")))
        assert set(pipeline.seconds_since_turn) == {"writer", "encoder", "references", "preparation"}
        began = time.monotonic()
        eventually(
            lambda: all(
                seconds < time.monotonic() - began for seconds in pipeline.seconds_since_turn.values()
            )
        )


def test_the_end_of_the_references_thread_or_of_a_preparation_thread_is_not_live(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with world.running() as pipeline:
        world.wait_committed(world.publish(upload("a")))
        check = HealthCheck(pipeline, 60.0)
        assert check.look().not_live == []
        monkeypatch.setattr(StepPool, "num_dead", 1)
        assert check.look().not_live == ["a preparation thread has ended"]
        monkeypatch.setattr(References, "is_running", False)
        assert "the references thread has ended" in check.look().not_live


def test_a_step_that_hangs_is_told() -> None:
    pool, gate, began = StepPool(1, "step"), threading.Event(), threading.Event()
    assert pool.seconds_in_step == 0.0

    def hang() -> None:
        began.set()
        gate.wait(PATIENCE_SECONDS)

    pool.submit(hang)
    assert began.wait(PATIENCE_SECONDS)
    eventually(lambda: pool.seconds_in_step > 0.01)
    gate.set()
    eventually(lambda: pool.seconds_in_step == 0.0)
    assert pool.num_dead == 0
    pool.close()


def test_a_disk_that_hangs_hangs_no_scrape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, usage = threading.Event(), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: answers.wait(PATIENCE_SECONDS) and usage)
    monkeypatch.setattr(disk_space, "_PATIENCE_SECONDS", 0.01)
    space = disk_space.DiskSpace(tmp_path)
    began = time.monotonic()
    assert all(math.isnan(space.ask().free) for _ in range(3))
    assert time.monotonic() - began < PATIENCE_SECONDS / 4
    monkeypatch.undo()
    answers.set()
    eventually(lambda: not math.isnan(space.ask().free))
