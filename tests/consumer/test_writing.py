"""The writer thread's queue: bounded in bytes, and never in anybody's way at the end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from clip_index.content import Delta
from clip_index.shard_writer import ShardWriter
from consumer.metrics import Metrics
from consumer.owned_shard import CommitPolicy
from consumer.work import Handover
from consumer.writing import RoomLimits, WriterNotices, Writing

PATIENCE_SECONDS = 30.0


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
