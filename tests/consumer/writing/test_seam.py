"""The consumer knows its index by two protocols, so that another engine can stand behind them."""

from __future__ import annotations

import ast
import re
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import consumer
from clip_index.content import Delta
from clip_index.errors import CommitUnknown, DamagedFile
from clip_index.generations.traces import TracedRecord
from clip_index.generations.watermark import Watermark
from clip_index.reading.index_reader import IndexReader
from clip_index.writing.erasure import NOTHING_TO_ERASE, ErasureBacklog
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter as IndexWriter
from clip_index.writing.shard_writer import WriterSettings
from consumer.backoff import Backoff
from consumer.directory_shards import DirectoryShards
from consumer.notices import Committed, Notices
from consumer.starting.refusals import exit_code_from
from consumer.tasks import AssignedPartition, Handover
from consumer.telemetry.metrics import Metrics
from consumer.turns import Turns
from consumer.writing.commit_policy import CommitPolicy
from consumer.writing.owned_shard import OwnedShard
from consumer.writing.thread import Writing
from fakes.inline_merges import InlineLanes
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import add, content, create_index, pack_path


@dataclass
class RememberingWriter:
    """Implements `ShardWriter` with two numbers."""

    partition: int
    epoch: int
    committed_next_offset: int
    next_offset: int
    shard: str = "uploads-0"
    generation: int = 1
    merge_debt: int = 0
    read_bytes: int = 0
    erasure_backlog: ErasureBacklog = NOTHING_TO_ERASE
    outcomes: list[CommitUnknown] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        assert delta.from_offset == self.next_offset
        self.next_offset = delta.next_offset

    def commit(self) -> int:
        if self.outcomes:
            raise self.outcomes.pop()
        self.committed_next_offset = self.next_offset
        return self.next_offset

    def maintain(self) -> None:
        pass

    def renew_watermark(self, watermark_ms: int) -> None:
        pass

    def publish_traces(self, traces: Sequence[TracedRecord]) -> None:
        pass

    def close(self) -> None:
        pass


@dataclass
class RememberedShards:
    """Implements `Shards`: the position of one shard outlives its writers."""

    next_offset: int = 0
    own_epochs: list[int | None] = field(default_factory=list)
    writers: list[RememberingWriter] = field(default_factory=list)

    def become_owner(self, partition: int, *, first_offset: int, own_epoch: int | None) -> RememberingWriter:
        self.own_epochs.append(own_epoch)
        epoch = len(self.own_epochs)
        self.writers.append(RememberingWriter(partition, epoch, self.next_offset, self.next_offset))
        return self.writers[-1]

    def read_watermark(self, partition: int) -> Watermark | None:
        return Watermark(watermark_ms=7, next_offset=self.next_offset, writer_epoch=1)

    def close(self) -> None:
        pass


def test_a_shard_of_another_engine_is_owned_committed_and_recovered() -> None:
    shards, notices = RememberedShards(), Notices()
    policy = CommitPolicy(interval_seconds=0.0, backoff=Backoff(0.0, 0.0))
    shard = OwnedShard(shards, AssignedPartition(0, 1, 0), policy=policy, metrics=Metrics(), notices=notices)
    shard.accept(Handover(0, 1, Delta(0, 2)))
    shards.writers[0].outcomes.append(CommitUnknown("nobody knows"))
    shard.turn()
    assert shard.is_failing
    shard.turn()
    assert not shard.is_failing
    assert shards.own_epochs == [None, 1]
    assert notices.take_all() == [Committed(0, 0, 7), Committed(0, 0, 7), Committed(0, 2, 7)]
    assert shard.release(0.0) == 2


def test_a_shard_with_too_many_segments_commits_nothing_until_a_merge_has_ended_and_says_so() -> None:
    shards, metrics = RememberedShards(), Metrics()
    policy = CommitPolicy(interval_seconds=0.0, max_bytes=0, max_merge_debt=20)
    shard = OwnedShard(shards, AssignedPartition(0, 1, 0), policy=policy, metrics=metrics, notices=Notices())
    [writer] = shards.writers
    writer.merge_debt = 20
    shard.accept(Handover(0, 1, Delta(0, 2)))
    with capture_logs() as lines:
        shard.turn()
        shard.turn()
    assert [line["event"] for line in lines] == ["commits wait for a merge to end"]
    assert (writer.next_offset, writer.committed_next_offset) == (2, 0)
    assert metrics.registry.get_sample_value("cliptide_consumer_commits_waiting", {"shard": "uploads-0"}) == 1
    writer.merge_debt = 3
    shard.turn()
    assert writer.committed_next_offset == 2
    assert metrics.registry.get_sample_value("cliptide_consumer_commits_waiting", {"shard": "uploads-0"}) == 0


def test_a_shard_with_too_many_segments_commits_what_it_has_when_it_is_given_away() -> None:
    shards, policy = RememberedShards(), CommitPolicy(max_merge_debt=20)
    shard = OwnedShard(
        shards, AssignedPartition(0, 1, 0), policy=policy, metrics=Metrics(), notices=Notices()
    )
    shards.writers[0].merge_debt = 20
    shard.accept(Handover(0, 1, Delta(0, 2)))
    assert shard.release(10.0) == 2


def test_the_number_of_segments_has_a_bound_when_no_merge_ever_ends(tmp_path: Path) -> None:
    settings = WriterSettings(merge=MergeSettings(max_debt=5))
    lanes = InlineLanes()
    shards = DirectoryShards(create_index(tmp_path), "writer", settings, lanes)
    policy = CommitPolicy(max_bytes=0, max_merge_debt=5)  # each change is due at once
    shard = OwnedShard(
        shards, AssignedPartition(0, 1, 0), policy=policy, metrics=Metrics(), notices=Notices()
    )
    assert isinstance(shard.writer, IndexWriter)
    for offset in range(40):
        shard.accept(Handover(0, 1, Delta(offset, offset + 1, [content(f"c{offset}", offset)])))
        shard.turn()
    assert len(shard.writer.manifest.segments) == 7 + 5
    lanes.release(is_released=True)
    while not shard.is_idle:
        shard.turn()
    assert shard.writer.committed_next_offset == 40
    assert shard.writer.manifest.num_live() == 40
    shard.close()


def test_a_writer_that_is_let_go_is_no_longer_looked_into(tmp_path: Path) -> None:
    """Its files would stay on the disk as long as somebody held it."""
    shards = DirectoryShards(create_index(tmp_path, num_partitions=2), "writer", lanes=InlineLanes())
    writers = {p: shards.become_owner(p, first_offset=0, own_epoch=None) for p in range(2)}
    for partition, writer in writers.items():
        writer.add(Delta(0, 1, [content(f"c{partition}", digest=bytes([partition] * 32))]))
        writer.commit()
    assert shards.find_derived(0, bytes([1] * 32)) is not None
    writers.pop(1).close()
    del writer
    assert shards.find_derived(0, bytes([1] * 32)) is None
    assert shards.find_derived(1, bytes([0] * 32)) is not None


def test_one_module_of_the_consumer_names_the_indexs_own_writer() -> None:
    root = Path(next(iter(consumer.__path__)))
    naming = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clip_index.")
        if {"ShardWriter", "MergeLanes"} & {alias.name for alias in node.names}
    }
    assert naming == {"directory_shards.py"}


@dataclass
class SlowShards(RememberedShards):
    """Its shards take five minutes to open."""

    turns: Turns = field(default_factory=Turns)
    seconds_since_turn: list[float] = field(default_factory=list)

    def become_owner(self, partition: int, *, first_offset: int, own_epoch: int | None) -> RememberingWriter:
        self.seconds_since_turn.append(self.turns.seconds_since)
        self.turns._turned_at -= 300.0
        return super().become_owner(partition, first_offset=first_offset, own_epoch=own_epoch)


def test_opening_many_large_shards_does_not_look_like_a_writer_that_hangs() -> None:
    shards = SlowShards()
    writing = Writing(shards, policy=CommitPolicy(), notices=Notices(), metrics=Metrics())
    shards.turns = writing.turns
    for partition in range(3):
        writing.open_shard(AssignedPartition(partition, 1, 0))
    writing._serve_requests()
    assert len(shards.seconds_since_turn) == 3
    assert max(shards.seconds_since_turn) < 300.0
    assert writing.turns.seconds_since < 300.0


def test_in_a_bucket_a_commit_brings_its_watermark_without_an_object_of_its_own(tmp_path: Path) -> None:
    root = object_store(memory_bucket(), "", tmp_path / "cache")
    index = create_index(root)
    policy = CommitPolicy(interval_seconds=0.0, watermark_every_seconds=1000.0, watermark_margin_seconds=0.1)
    shards = DirectoryShards(index, "writer")
    shard = OwnedShard(
        shards, AssignedPartition(0, 1, 0), policy=policy, metrics=Metrics(), notices=Notices()
    )
    reader = IndexReader(root)
    for offset, at_ms in enumerate((3_000, 4_000)):
        delta = Delta(offset, offset + 1, (content(f"{offset}", offset),))
        shard.accept(Handover(0, 1, delta, timestamps_ms=(at_ms,)))
        shard.turn()
        reader.reload()
        assert reader.searcher is not None
        [snapshot] = reader.searcher.shards.values()
        assert (snapshot.next_offset, snapshot.watermark_ms) == (offset + 1, at_ms - 100)
    shard.close()


def test_damage_that_is_found_after_a_takeover_ends_the_consumer_as_at_the_takeover(tmp_path: Path) -> None:
    shards = DirectoryShards(create_index(tmp_path), "writer")
    with closing(shards.become_owner(0, first_offset=0, own_epoch=None)) as writer:
        add(writer, [content("a", thumbnail=bytes(2**21))])
        writer.commit()
        path = pack_path(writer)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(damaged)
    shard = OwnedShard(
        shards, AssignedPartition(0, 1, 0), policy=CommitPolicy(), metrics=Metrics(), notices=Notices()
    )
    with pytest.raises(DamagedFile, match=re.escape(f"{path}: xxh3-128")) as refused:
        take_turns(shard)
    assert exit_code_from(refused.value) == 3
    shard.close()


def take_turns(shard: OwnedShard) -> None:
    """Take turns until one of them raises, because a thread beside them verifies; half a minute at most."""
    for _ in range(30_000):
        shard.turn()
        time.sleep(0.001)
