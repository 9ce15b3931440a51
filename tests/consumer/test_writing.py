"""What waits for the writer thread: bounded in bytes, and in nobody's way at the end."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from clip_index.content import Delta, RemovedContent
from clip_index.index_directory import IndexDescription, IndexDirectory
from clip_index.shard_writer import ShardWriter
from consumer.dead_letter import DeadLetterDelivery
from consumer.metrics import Metrics
from consumer.owned_shard import CommitPolicy, OwnedShard
from consumer.work import Handover
from consumer.writing import RoomLimits, WriterNotices, Writing
from event_log.records import Delivery
from tests.consumer.running import PATIENCE_SECONDS
from tests.fakes.hash_encoder import HashEncoder


def no_shard(partition: int, first_offset: int) -> ShardWriter:
    raise AssertionError("nothing is taken over here")


@pytest.fixture
def writing() -> Writing:
    return Writing(
        no_shard,
        policy=CommitPolicy(),
        notices=WriterNotices(lambda committed: None, lambda partition, epoch: None),
        metrics=Metrics(),
        room=RoomLimits(max_waiting_bytes=100),
    )


def handover(size_bytes: int) -> Handover:
    return Handover(0, 1, Delta(0, 1), size_bytes=size_bytes)


def test_many_small_handovers_have_room_where_few_large_ones_have_not(writing: Writing) -> None:
    for _ in range(99):
        writing.hand_over(handover(1))
    writing.hand_over(handover(1000))
    with ThreadPoolExecutor(1) as encoder:
        waiting = encoder.submit(writing.hand_over, handover(1))
        assert not wait([waiting], timeout=0.1).done
        writing.close()
        waiting.result(PATIENCE_SECONDS)


def test_what_the_writer_takes_makes_room(writing: Writing) -> None:
    writing.hand_over(handover(1000))
    thread = threading.Thread(target=writing.run)
    thread.start()
    for _ in range(3):
        writing.hand_over(handover(1000))
    writing.close()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def test_a_shard_counts_what_waits_until_it_is_added(tmp_path: Path) -> None:
    description = IndexDescription(
        topic="uploads", topic_id=None, num_partitions=1, group_id="g", fingerprint=HashEncoder().fingerprint
    )
    index = IndexDirectory.create(tmp_path, "main", description)
    shard = OwnedShard(
        lambda: ShardWriter.take_over(index, 0, writer_id="w", first_offset=0),
        1,
        policy=CommitPolicy(),
        metrics=Metrics(),
        committed=lambda committed: None,
    )
    pending = Future[Delivery]()
    letter = DeadLetterDelivery(whole=lambda: pending, without_value=lambda: pending)
    shard.accept(Handover(0, 1, Delta(0, 1, (RemovedContent("a", 0),)), size_bytes=10))
    shard.accept(Handover(0, 1, Delta(1, 2), (letter,), size_bytes=20))
    assert shard.waiting_bytes == 30
    shard.turn()
    assert shard.waiting_bytes == 20
    pending.set_result(Delivery("letters", 0, 0, 1))
    shard.turn()
    assert shard.waiting_bytes == 0
    assert shard.release(PATIENCE_SECONDS) == 2
