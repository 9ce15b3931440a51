"""Partitions come and go: revoked, lost, fenced, taken over; and what a start refuses."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path

import pytest

from clip_index.errors import CommitUnknown, IndexRefused
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.writing.shard_writer import ShardWriter
from consumer.backlog.backlog import BacklogLimits
from consumer.backoff import Backoff
from consumer.encoding.thread import Encoding
from consumer.errors import ConsumerFault, FencedWhileAssigned, StartRefused
from consumer.intake.start_check import StartOptions, check_topic
from consumer.writing.thread import Writing
from event_log.errors import FatalLogError, TransientLogError
from event_log.records import TopicDescription
from fakes.hash_encoder import HashEncoder
from tests.consumer.encoders import CountingEncoder, HeldEncoder
from tests.consumer.running import PATIENCE_SECONDS, TOPIC, World, eventually, upload


def test_two_consumers_share_the_partitions_and_nothing_is_encoded_twice(tmp_path: Path) -> None:
    first = World(tmp_path, num_partitions=4, encoder=CountingEncoder())
    for number in range(80):
        first.publish(upload(f"c{number}"), number % 4)
    second = World(tmp_path, log=first.log, num_partitions=4, encoder=CountingEncoder())
    with first.running():
        first.wait_committed(1)
        with second.running():
            eventually(lambda: any(second.owns(partition) for partition in range(4)))
            for number in range(80, 160):
                first.publish(upload(f"c{number}"), number % 4)
            eventually(lambda: all(first.next_offset(partition) == 40 for partition in range(4)))
    searcher = first.searcher()
    assert all(searcher.find(f"c{number}") is not None for number in range(160))
    assert isinstance(first.encoder, CountingEncoder)
    assert isinstance(second.encoder, CountingEncoder)
    assert first.encoder.num_encoded + second.encoder.num_encoded == 160
    assert second.encoder.num_encoded > 0


def test_a_revoke_waits_for_the_batch_at_hand_and_commits_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, is_settling = Encoding.settle, threading.Event()

    def settle_and_tell(encoding: Encoding, timeout_seconds: float) -> bool:
        is_settling.set()
        return settle(encoding, timeout_seconds)

    monkeypatch.setattr(Encoding, "settle", settle_and_tell)
    encoder = HeldEncoder()
    world = World(tmp_path, encoder=encoder)
    end = world.publish(upload("a"))
    pipeline = world.build()
    pipeline.start()
    assert encoder.is_encoding.wait(PATIENCE_SECONDS)
    with ThreadPoolExecutor() as pool:
        finishing = pool.submit(pipeline.finish)
        assert is_settling.wait(PATIENCE_SECONDS)
        assert wait([finishing], timeout=0.1).done == set()  # one that does not wait has the time to show it
        encoder.may_encode.set()
        finishing.result(PATIENCE_SECONDS)
    assert world.next_offset() == end


def fail_to_encode(world: World, monkeypatch: pytest.MonkeyPatch) -> type:
    def fail(encoder: HashEncoder, prepared: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(HashEncoder, "encode", fail)
    world.publish(upload("a"))
    return Encoding


def fail_to_deliver(world: World, monkeypatch: pytest.MonkeyPatch) -> type:
    world.log.fail_next("publish", FatalLogError("not authorised"))
    world.append(b"a", b"no event")
    return Writing


@pytest.mark.parametrize("trouble", [fail_to_encode, fail_to_deliver])
def test_a_thread_that_fails_says_so_before_it_answers_those_who_wait_for_it(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[World, pytest.MonkeyPatch], type],
) -> None:
    """Else a revoke that goes on meanwhile would take the end for a good one."""
    failing = trouble(world, monkeypatch)
    end, failures = failing._end, list[BaseException | None]()  # type: ignore[attr-defined]

    def note_and_end(thread: object) -> None:
        failures.append(pipeline.failure)
        end(thread)

    monkeypatch.setattr(failing, "_end", note_and_end)
    pipeline = world.build()
    pipeline.start()
    assert pipeline.wait(PATIENCE_SECONDS)
    with pytest.raises((ConsumerFault, FatalLogError)) as raised:
        pipeline.finish()
    assert failures == [raised.value]


def test_a_lost_partition_is_dropped_without_a_commit(tmp_path: Path) -> None:
    encoder = HeldEncoder()
    world = World(tmp_path, encoder=encoder)
    world.publish(upload("a"))
    with world.running():
        assert encoder.is_encoding.wait(PATIENCE_SECONDS)
        assert world.source is not None
        world.source.expel()
        eventually(lambda: world.num_takeovers() >= 2)
        encoder.may_encode.set()
        world.wait_committed(1)
    assert world.searcher().find("a") is not None


def test_records_that_retention_removes_before_they_are_read_stop_a_running_consumer(tmp_path: Path) -> None:
    encoder = HeldEncoder()
    world = World(tmp_path, encoder=encoder)
    few_at_once = replace(world.options.intake, max_poll_records=2)
    world.set_options(backlog=BacklogLimits(max_bytes=400), intake=few_at_once)
    for number in range(40):
        world.publish(upload(f"c{number}"))
    pipeline = world.build()
    pipeline.start()
    assert encoder.is_encoding.wait(PATIENCE_SECONDS)
    world.log.truncate(TOPIC, 0, 39)
    encoder.may_encode.set()
    assert pipeline.wait(PATIENCE_SECONDS)
    with pytest.raises(StartRefused, match=r"at \d+, but the log holds \[39, 40\)") as refusal:
        pipeline.finish()
    behind = world.next_offset()
    assert 0 < behind < 39
    assert "CLIPTIDE_CONSUMER__ACCEPT_DATA_LOSS=true" in str(refusal.value)
    failure = world.failure()
    assert isinstance(failure, StartRefused)
    assert f"goes on at {behind} but the log begins at 39" in str(failure)
    world.set_options(start=StartOptions(accepts_data_loss=True))
    with world.running():
        world.wait_committed(40)


def test_a_position_out_of_range_ends_the_consumer_even_while_the_log_does_not_say_its_range(
    world: World,
) -> None:
    pipeline = world.build()
    pipeline.start()
    world.wait_committed(world.publish(upload("a")))
    with world.log.changed:
        world.log.fail_next("log_range", TransientLogError("away"), times=10_000)
        for _ in range(5):
            world.log.append_marker(TOPIC, 0)
        world.log.truncate(TOPIC, 0, 5)
    assert pipeline.wait(PATIENCE_SECONDS)
    with pytest.raises(StartRefused, match=r"at 1, but the log holds no such offset .*ACCEPT_DATA_LOSS"):
        pipeline.finish()


def test_a_fenced_writer_drops_its_shard_and_stops_when_the_partition_stays(world: World) -> None:
    pipeline = world.build()
    pipeline.start()
    world.wait_committed(world.publish(upload("a")))
    ShardWriter.take_over(IndexDirectory.open(world.root, "main"), 0, Claim("rival")).close()
    world.publish(upload("b"))
    assert pipeline.wait(PATIENCE_SECONDS)
    with pytest.raises(FencedWhileAssigned):
        pipeline.finish()
    assert world.searcher().find("b") is None
    with world.running():
        world.wait_committed(2)
    assert world.searcher().find("b") is not None


def test_an_unknown_commit_is_recovered_from_disk_without_reading_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.encoder = encoder = CountingEncoder()
    commit = ShardWriter.commit
    outcomes = iter([True, False])  # happened, did not happen

    def commit_unknown(writer: ShardWriter) -> int:
        if not writer.has_changes:
            return commit(writer)
        happens = next(outcomes, None)
        if happens is None:
            return commit(writer)
        if happens:
            commit(writer)
        raise CommitUnknown("nobody knows")

    monkeypatch.setattr(ShardWriter, "commit", commit_unknown)
    with world.running():
        for number in range(3):
            end = world.publish(upload(f"c{number}"))
            eventually(lambda end=end: world.group_offset() == end)  # type: ignore[misc]
    assert encoder.num_encoded == 3
    assert all(world.searcher().find(f"c{number}") is not None for number in range(3))


def test_a_disk_that_fails_for_a_while_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = ShardWriter.commit
    failures = iter([OSError(28, "No space left on device")] * 3)

    def failing_commit(writer: ShardWriter) -> int:
        error = next(failures, None) if writer.has_changes else None
        if error is not None:
            raise error
        return commit(writer)

    monkeypatch.setattr(ShardWriter, "commit", failing_commit)
    with world.running():
        world.wait_committed(world.publish(upload("a")))
    assert world.failures("index") == 3
    assert world.reasons() == []


def test_records_that_are_gone_are_refused_and_can_be_accepted(world: World) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
    for number in range(5):
        world.publish(upload(f"c{number}"))
    world.log.truncate(TOPIC, 0, 4)
    error = world.failure()
    assert isinstance(error, StartRefused)
    assert "goes on at 1 but the log begins at 4" in str(error)
    assert "CLIPTIDE_CONSUMER__ACCEPT_DATA_LOSS" in str(error)
    world.set_options(start=StartOptions(accepts_data_loss=True))
    with world.running():
        world.wait_committed(6)
    assert world.searcher().find("c4") is not None


def test_another_index_root_is_refused_and_can_be_accepted(world: World, tmp_path: Path) -> None:
    with world.running():
        end = world.publish(upload("a"))
        eventually(lambda: world.group_offset() == end)
    other = World(tmp_path / "elsewhere", log=world.log)
    error = other.failure()
    assert isinstance(error, StartRefused)
    assert "group is at 1 but the index goes on at 0" in str(error)
    other.set_options(start=StartOptions(accepts_rewind=True))
    with other.running():
        other.wait_committed(end)


def test_a_recreated_topic_is_refused(world: World) -> None:
    with world.running():
        world.wait_committed(world.publish(upload("a")))
    world.log.delete_topic(TOPIC)
    world.log.create_topic(TOPIC)
    with pytest.raises(IndexRefused, match="topic_id"):
        world.build()


def test_a_topic_recreated_under_a_running_consumer_is_refused(world: World) -> None:
    pipeline = world.build()
    pipeline.start()
    world.wait_committed(world.publish(upload("a")))
    with world.log.changed:
        world.log.delete_topic(TOPIC)
        world.log.create_topic(TOPIC)
        world.publish(upload("b"))
        world.publish(upload("c"))  # the reader's position is inside the new log, too
    assert pipeline.wait(PATIENCE_SECONDS)
    with pytest.raises(StartRefused, match=r"built of topic id \w+ with 1 partitions.*CLIPTIDE_INDEX__ID"):
        pipeline.finish()


def test_a_topic_with_more_partitions_than_the_index_is_refused() -> None:
    built_of = TopicDescription(TOPIC, "id", 4)
    with pytest.raises(StartRefused, match="id id with 4 partitions, but now the log has topic id id with 6"):
        check_topic(built_of, replace(built_of, num_partitions=6))


def test_a_group_offset_is_committed_behind_the_index(world: World) -> None:
    with world.running():
        end = world.publish(upload("a"))
        eventually(lambda: world.group_offset() == end)
        assert world.next_offset() == end


@pytest.mark.parametrize("away", ["log", "disk"])
def test_a_stop_does_not_wait_for_a_takeover_that_does_not_succeed(
    world: World, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    def failing_take_over(*_: object, **__: object) -> ShardWriter:
        raise OSError(5, "Input/output error")

    if away == "log":
        world.log.fail_next("log_range", TransientLogError("away"), times=10_000)
    else:
        monkeypatch.setattr(ShardWriter, "take_over", failing_take_over)
    slow = Backoff(first_seconds=PATIENCE_SECONDS / 2, longest_seconds=PATIENCE_SECONDS / 2)
    world.set_options(patience=replace(world.options.patience, backoff=slow))
    with world.running():
        eventually(lambda: world.failures("assignment") == 1)
        stopped_at = time.monotonic()
    assert time.monotonic() - stopped_at < PATIENCE_SECONDS / 4


def test_a_stop_does_not_wait_for_a_disk_that_keeps_failing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_commit(writer: ShardWriter) -> int:
        raise OSError(28, "No space left on device")

    world.set_options(patience=replace(world.options.patience, release_seconds=0.3))
    monkeypatch.setattr(ShardWriter, "commit", failing_commit)
    with world.running() as pipeline:
        world.publish(upload("a"))
        eventually(lambda: (world.failures("index") or 0) >= 1)
        assert not pipeline.is_writable
    monkeypatch.undo()
    with world.running():
        world.wait_committed(1)
    assert world.searcher().find("a") is not None
