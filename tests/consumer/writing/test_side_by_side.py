"""Shards that have something to commit are committed at the same time, and fail apart."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from clip_index.content import Delta
from clip_index.errors import CommitUnknown, DamagedFile, Fenced
from clip_index.generations.traces import TracedRecord
from clip_index.generations.watermark import Watermark
from clip_index.writing.erasure import NOTHING_TO_ERASE, ErasureBacklog
from consumer.backoff import Backoff
from consumer.notices import Notices, ShardFenced
from consumer.pipeline_state import PipelineState
from consumer.tasks import AssignedPartition, Handover
from consumer.telemetry.metrics import Metrics
from consumer.writing.commit_policy import CommitPolicy
from consumer.writing.side_by_side import SideBySide
from consumer.writing.thread import Writing
from tests.consumer.running import PATIENCE_SECONDS, eventually


@dataclass
class MeetingWriter:
    """Implements `ShardWriter`: what its commit does is for the test to say."""

    partition: int
    act: Callable[[], None]
    next_offset: int = 0
    committed_next_offset: int = 0
    epoch: int = 1
    generation: int = 1
    merge_debt: int = 0
    read_bytes: int = 0
    erasure_backlog: ErasureBacklog = NOTHING_TO_ERASE
    used_by: set[int] = field(default_factory=set)

    @property
    def shard(self) -> str:
        return f"uploads-{self.partition}"

    def add(self, delta: Delta) -> None:
        self.used_by.add(threading.get_ident())
        self.next_offset = delta.next_offset

    def commit(self) -> int:
        self.act()
        self.committed_next_offset = self.next_offset
        return self.next_offset

    def maintain(self) -> None:
        self.used_by.add(threading.get_ident())

    def renew_watermark(self, watermark_ms: int) -> None:
        self.used_by.add(threading.get_ident())

    def publish_traces(self, traces: Sequence[TracedRecord]) -> None: ...

    def close(self) -> None: ...


@dataclass
class MeetingShards:
    """Implements `Shards`. `acts` are what the commits of each partition do."""

    acts: dict[int, Callable[[], None]]
    writers: dict[int, MeetingWriter] = field(default_factory=dict)

    def become_owner(self, partition: int, *, first_offset: int, own_epoch: int | None) -> MeetingWriter:
        self.writers[partition] = MeetingWriter(partition, self.acts[partition])
        return self.writers[partition]

    def read_watermark(self, partition: int) -> Watermark | None:
        return None

    def close(self) -> None: ...


@contextmanager
def running(shards: MeetingShards, notices: Notices) -> Iterator[tuple[Writing, PipelineState]]:
    """Hand two records of each partition to a writer thread that owns all of them."""
    policy = CommitPolicy(interval_seconds=0.0, backoff=Backoff(0.0, 0.0))
    writing, state = Writing(shards, policy=policy, notices=notices, metrics=Metrics()), PipelineState()
    opened = [writing.open_shard(AssignedPartition(partition, 1, 0)) for partition in shards.acts]
    for partition in shards.acts:
        writing.hand_over(Handover(partition, 1, Delta(0, 2)))
    thread = threading.Thread(target=run, args=(writing, state))
    thread.start()
    try:
        for future in opened:
            future.result(PATIENCE_SECONDS)
        yield writing, state
    finally:
        writing.close()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def run(writing: Writing, state: PipelineState) -> None:
    try:
        writing.run(state)
    except DamagedFile:
        assert state.failure is not None


def committed(shards: MeetingShards) -> list[int]:
    return [writer.committed_next_offset for _, writer in sorted(shards.writers.items())]


def test_commits_of_several_shards_are_under_way_at_the_same_time() -> None:
    """One after the other none of them would end: each waits for all the others."""
    meeting = threading.Barrier(4, timeout=PATIENCE_SECONDS)
    shards = MeetingShards({partition: lambda: void(meeting.wait()) for partition in range(4)})
    with running(shards, Notices()) as (_, state):
        eventually(lambda: committed(shards) == [2, 2, 2, 2])
        assert state.failure is None
    assert len(set.union(*(writer.used_by for writer in shards.writers.values()))) == 1, (
        "apart from its commit, a shard is used by the writer thread alone"
    )


def void(_: object) -> None:
    """Drop a result."""


def fail(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


TROUBLES = {
    "disk trouble": OSError(errno.EIO, "input/output error"),
    "an unknown outcome": CommitUnknown("nobody knows"),
    "another owner": Fenced("uploads-0", 1, 2),
}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES)
def test_trouble_with_one_shard_keeps_no_other_from_committing(trouble: Exception) -> None:
    shards = MeetingShards({0: fail(trouble), 1: lambda: None, 2: lambda: None})
    notices = Notices()
    with running(shards, notices) as (writing, state):
        eventually(lambda: committed(shards)[1:] == [2, 2])
        writing.hand_over(Handover(1, 1, Delta(2, 3)))
        eventually(lambda: committed(shards)[1:] == [3, 2])
        assert committed(shards)[0] == 0
        assert state.failure is None
        if isinstance(trouble, Fenced):
            assert ShardFenced(0, 1) in notices.take_all()
        else:
            assert writing.is_failing


def test_a_shard_whose_trouble_ends_commits_what_it_had() -> None:
    troubles = [OSError(errno.EIO, "input/output error")] * 3

    def fail_for_a_while() -> None:
        if troubles:
            raise troubles.pop()

    shards = MeetingShards({0: fail_for_a_while, 1: lambda: None})
    with running(shards, Notices()) as (writing, _):
        eventually(lambda: committed(shards) == [2, 2])
        eventually(lambda: not writing.is_failing)


def test_what_is_not_worth_retrying_ends_the_thread_after_the_commits_beside_it() -> None:
    shards = MeetingShards({0: fail(DamagedFile("a pack", "flipped")), 1: lambda: None})
    with running(shards, Notices()) as (_, state):
        eventually(lambda: isinstance(state.failure, DamagedFile))
        assert committed(shards) == [0, 2]


def test_every_action_ends_before_any_error_is_told() -> None:
    side_by_side, ended = SideBySide(), list[int]()
    first_failed = threading.Event()

    def fail_at_once() -> None:
        first_failed.set()
        raise OSError("first")

    def end_later() -> None:
        assert first_failed.wait(PATIENCE_SECONDS)
        ended.append(1)

    errors = side_by_side.run([fail_at_once, end_later])
    assert ended == [1]
    assert [type(error) for error in errors] == [OSError, type(None)]
    assert [type(error) for error in side_by_side.run([fail_at_once])] == [OSError]
    side_by_side.close()
