"""What waits for the writer thread: bounded in bytes, and in nobody's way at the end."""

from __future__ import annotations

import errno
import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from clip_index.content import Delta, RemovedContent
from clip_index.errors import Fenced
from clip_index.generations.takeover import Claim
from clip_index.generations.watermark import Watermark
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from consumer.backoff import Backoff
from consumer.dead_letters.dead_letter import DeadLetterDelivery
from consumer.directory_shards import DirectoryShards
from consumer.notices import Notices
from consumer.pipeline_state import PipelineState
from consumer.tasks import AssignedPartition, Handover
from consumer.telemetry.metrics import Metrics
from consumer.writing.commit_policy import CommitPolicy
from consumer.writing.owned_shard import OwnedShard
from consumer.writing.thread import RoomLimits, Writing
from event_log.records import Delivery
from fakes.failing_disk import fail_to_fsync_the_shard
from fakes.hash_encoder import HashEncoder
from fakes.shards import content, patch, unit_vectors
from tests.consumer.records import Letter
from tests.consumer.running import PATIENCE_SECONDS


class NoShards:
    """Implements `Shards` where nothing is taken over."""

    def become_owner(self, partition: int, *, first_offset: int, own_epoch: int | None) -> ShardWriter:
        raise AssertionError("nothing is taken over here")

    def read_watermark(self, partition: int) -> Watermark | None:
        raise AssertionError("nothing is taken over here")

    def close(self) -> None:
        pass


@pytest.fixture
def writing() -> Writing:
    return Writing(
        NoShards(),
        policy=CommitPolicy(),
        notices=Notices(),
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
    state = PipelineState()
    thread = threading.Thread(target=lambda: writing.run(state))
    thread.start()
    for _ in range(3):
        writing.hand_over(handover(1000))
    writing.close()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert state.failure is None


def own_shard(
    root: Path, metrics: Metrics, settings: WriterSettings | None = None, interval_seconds: float = 0.0
) -> OwnedShard:
    description = IndexDescription(
        topic="uploads", topic_id=None, num_partitions=1, group_id="g", fingerprint=HashEncoder().fingerprint
    )
    index = IndexDirectory.create(root, "main", description)
    return OwnedShard(
        DirectoryShards(index, "w", settings or WriterSettings()),
        AssignedPartition(0, assignment_epoch=1, first_offset=0),
        policy=CommitPolicy(interval_seconds, backoff=Backoff(0.0, 0.0)),
        metrics=metrics,
        notices=Notices(),
    )


def test_a_merge_that_cannot_be_begun_holds_up_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_fork(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", fail_to_fork)
    metrics = Metrics()
    shard = own_shard(tmp_path, metrics, WriterSettings(merge=MergeSettings(merge_factor=2)))
    for offset in range(4):
        deletion = RemovedContent(f"{offset}", offset, version=1)
        shard.accept(Handover(0, 1, Delta(offset, offset + 1, (deletion,))))
        shard.turn()
    assert shard.writer is not None
    assert shard.writer.committed_next_offset == 4
    assert not shard.is_failing
    assert metrics.registry.get_sample_value("cliptide_consumer_merges_failed_total")
    shard.close()


def test_a_shard_counts_what_waits_until_it_is_added(tmp_path: Path) -> None:
    shard = own_shard(tmp_path, Metrics())
    pending = Future[Delivery]()
    letter = DeadLetterDelivery(Letter(lambda: pending))
    shard.accept(Handover(0, 1, Delta(0, 1, (RemovedContent("a", 0),)), size_bytes=10))
    shard.accept(Handover(0, 1, Delta(1, 2), (letter,), size_bytes=20))
    assert shard.waiting_bytes == 30
    shard.turn()
    assert shard.waiting_bytes == 20
    pending.set_result(Delivery("letters", 0, 0, 1))
    shard.turn()
    assert shard.waiting_bytes == 0
    assert shard.release(PATIENCE_SECONDS) == 2


def test_a_shard_counts_what_is_added_until_it_is_committed(tmp_path: Path) -> None:
    """Folded into the buffer it may be little, or nothing; but it is kept until the commit covers it."""
    shard = own_shard(tmp_path, Metrics(), interval_seconds=PATIENCE_SECONDS)
    for offset in range(3):
        deletion = RemovedContent("unknown", offset)
        shard.accept(Handover(0, 1, Delta(offset, offset + 1, (deletion,)), size_bytes=10))
    shard.turn()
    assert shard.waiting_bytes == 0
    assert shard.buffered_bytes == 30
    assert shard.release(PATIENCE_SECONDS) == 3
    assert shard.buffered_bytes == 0


def test_what_is_added_is_committed_when_it_is_much(tmp_path: Path) -> None:
    shard = own_shard(tmp_path, Metrics(), interval_seconds=PATIENCE_SECONDS)
    shard.accept(Handover(0, 1, Delta(0, 1), size_bytes=CommitPolicy().max_bytes))
    shard.turn()
    assert shard.writer is not None
    assert shard.writer.committed_next_offset == 1
    shard.close()


def test_patches_are_committed_when_they_have_read_much(tmp_path: Path) -> None:
    """A patch is small, and the content that it applies to may be large."""
    most, size = CommitPolicy().max_bytes, 2**20
    shard = own_shard(tmp_path, Metrics(), interval_seconds=PATIENCE_SECONDS)
    rows = unit_vectors(1, dimension=HashEncoder().dimension)
    texts = tuple(content(str(n), n, modality="text", text="x" * size, embeddings=rows) for n in range(40))
    shard.accept(Handover(0, 1, Delta(0, 40, texts), size_bytes=most))
    shard.turn()
    for offset in range(40, 80):
        change = patch(str(offset - 40), offset, title="hat")
        shard.accept(Handover(0, 1, Delta(offset, offset + 1, (change,)), size_bytes=10))
    shard.turn()
    assert shard.writer is not None
    assert 40 < shard.writer.committed_next_offset < 80
    assert shard.writer.read_bytes == 0
    assert shard.release(PATIENCE_SECONDS) == 80


def test_a_shard_recovers_from_an_unknown_outcome_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = own_shard(tmp_path, Metrics())
    shard.accept(Handover(0, 1, Delta(0, 1, (RemovedContent("a", 0, version=1),))))
    with monkeypatch.context() as patch:
        fail_to_fsync_the_shard(patch)
        for _ in range(3):
            shard.turn()
    assert shard.release(PATIENCE_SECONDS) == 1


def test_a_shard_that_recovers_does_not_take_itself_back_from_a_new_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = own_shard(tmp_path, Metrics())
    shard.accept(Handover(0, 1, Delta(0, 1, (RemovedContent("a", 0, version=1),))))
    with monkeypatch.context() as patch:
        fail_to_fsync_the_shard(patch)
        shard.turn()
    index = IndexDirectory.open(tmp_path, "main")
    owner = ShardWriter.take_over(index, 0, Claim("new"))
    with pytest.raises(Fenced, match="own writer epoch 1, found 2"):
        shard.turn()
    owner.add(Delta(owner.next_offset, 9))
    assert owner.commit() == 9


def test_a_release_without_patience_commits_what_it_can_at_once_and_does_not_complain(tmp_path: Path) -> None:
    shard = own_shard(tmp_path, Metrics())
    shard.accept(Handover(0, 1, Delta(0, 1)))
    with capture_logs() as lines:
        assert shard.release(0.0) == 1
    assert not lines
