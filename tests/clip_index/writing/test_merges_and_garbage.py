"""What merges must remember and may forget, which segments they take, and what garbage is not."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from clip_index.content import Change
from clip_index.generations.garbage import retained_generations
from clip_index.generations.history import list_generations, manifest_name
from clip_index.generations.manifest import Manifest, SegmentEntry, TombstonesEntry
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot
from clip_index.storage.local_store import LocalShardStore
from clip_index.writing.merge_policy import MergeSettings, merge_debt, plan_merges
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, path_of, removal, root_of, take_over
from tests.fixtures.roots import on_a_directory

PAIRS = MergeSettings(merge_factor=2, max_dead_share=1.0)


@pytest.fixture
def index(root: IndexRoot) -> IndexDirectory:
    return create_index(root)


@pytest.fixture
def lanes() -> InlineLanes:
    return InlineLanes()


@pytest.fixture
def writer(index: IndexDirectory, lanes: InlineLanes) -> ShardWriter:
    return take_over(index, lanes=lanes, settings=WriterSettings(merge=PAIRS))


def is_found(index: IndexDirectory, content_id: str) -> bool:
    reader = IndexReader(root_of(index))
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher.find(content_id) is not None


def merge_once(writer: ShardWriter, lanes: InlineLanes) -> None:
    writer.maintain()
    assert lanes.running(writer.store)
    lanes.release(is_released=True)
    writer.maintain()
    assert len(writer.manifest.segments) == 1


def test_a_merge_remembers_deletes(index: IndexDirectory, writer: ShardWriter, lanes: InlineLanes) -> None:
    add(writer, [removal("a", version=5), lambda o: content("other", o)])
    writer.commit()
    add(writer, [lambda o: removal("b", o, version=2)])
    writer.commit()
    merge_once(writer, lanes)
    successor = take_over(index)
    add(successor, [lambda o: content("a", o, version=5), lambda o: content("b", o, version=1)])
    add(successor, [lambda o: content("other", o, version=1)])
    successor.commit()
    assert [is_found(index, i) for i in ("a", "b", "other")] == [False, False, True]


def test_a_delete_is_remembered_by_the_merge_that_drops_its_content(
    index: IndexDirectory, writer: ShardWriter, lanes: InlineLanes
) -> None:
    add(writer, [content("a", version=5), lambda o: content("other", o)])
    writer.commit()
    add(writer, [lambda o: removal("a", o)])
    writer.commit()
    merge_once(writer, lanes)
    assert [e.num_contents for e in writer.manifest.segments] == [1]
    successor = take_over(index)
    add(successor, [lambda o: content("a", o, version=5)])
    successor.commit()
    assert not is_found(index, "a")


@pytest.mark.parametrize("later", [removal("a", version=7), content("a", version=7)], ids=["deleted", "back"])
def test_a_merge_forgets_a_delete_that_something_newer_replaces(
    writer: ShardWriter, lanes: InlineLanes, later: Change
) -> None:
    add(writer, [removal("a", version=5)])
    writer.commit()
    add(writer, [replace(later, offset=1)])
    writer.commit()
    merge_once(writer, lanes)
    assert sum(entry.num_entries for entry in writer.manifest.segments) == 1


def segment_sizes(writer: ShardWriter) -> list[int]:
    return [entry.num_entries for entry in writer.manifest.segments]


def commit(writer: ShardWriter, *changes: Change) -> None:
    first = writer.next_offset
    add(writer, [replace(change, offset=first + i) for i, change in enumerate(changes)])
    writer.commit()


def test_a_segment_leaves_with_its_last_live_row(index: IndexDirectory, writer: ShardWriter) -> None:
    commit(writer, content("a"), content("b", version=3))
    commit(writer, removal("a"))
    assert segment_sizes(writer) == [2]
    commit(writer, content("b", version=4))
    assert segment_sizes(writer) == [1]
    assert not writer.manifest.tombstones
    successor = take_over(index)
    commit(successor, content("b", version=3), content("a"))
    assert [is_found(index, i) for i in "ab"] == [True, True]
    assert segment_sizes(successor) == [1, 1]


def test_the_floor_of_a_deleted_content_outlives_its_segment(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    commit(writer, content("a", version=3))
    commit(writer, removal("a"))
    assert [(e.num_contents, e.num_deletes) for e in writer.manifest.segments] == [(0, 1)]
    commit(writer, content("a", version=3))
    assert not is_found(index, "a")


def test_a_dead_segment_stays_while_it_remembers_a_delete(index: IndexDirectory, writer: ShardWriter) -> None:
    commit(writer, content("a"), removal("gone", version=7))
    commit(writer, removal("a"))
    commit(writer, content("gone", version=7))
    assert segment_sizes(writer) == [2]
    assert not is_found(index, "gone")


def test_a_dead_segment_stays_while_it_is_being_merged(
    index: IndexDirectory, writer: ShardWriter, lanes: InlineLanes
) -> None:
    commit(writer, content("a"))
    commit(writer, content("b"))
    writer.maintain()
    assert lanes.running(writer.store)
    commit(writer, removal("a"))
    assert segment_sizes(writer) == [1, 1]
    lanes.release(is_released=True)
    writer.maintain()
    assert [is_found(index, i) for i in "ab"] == [False, True]
    commit(writer, removal("b"))
    assert segment_sizes(writer) == []


def test_a_running_merge_is_no_garbage_however_long_it_takes(
    index: IndexDirectory, lanes: InlineLanes
) -> None:
    settings = WriterSettings(retain_for_seconds=0.0, collect_every_seconds=0.0, merge=PAIRS)
    writer = take_over(index, lanes=lanes, settings=settings, clock=lambda: time.time() + 3600)
    for i in "ab":
        add(writer, [lambda o, i=i: content(i, o)])
        writer.commit()
    merge_once(writer, lanes)
    assert is_found(index, "a")


def test_the_generation_that_a_running_merge_reads_stays_until_it_has_ended(
    index: IndexDirectory, lanes: InlineLanes
) -> None:
    """The process of a merge reads it when it has started, which may be several commits later."""
    settings = WriterSettings(retain_for_seconds=0.0, collect_every_seconds=0.0, merge=PAIRS)
    writer = take_over(index, lanes=lanes, settings=settings, clock=lambda: time.time() + 3600)
    for i in "ab":
        commit(writer, content(i))
    writer.maintain()
    [job] = [worker.job for worker in lanes.running(writer.store).values()]
    assert job is not None
    for i in "cdefg":
        commit(writer, content(i))
        writer.maintain()
    assert job.generation in list_generations(writer.store)
    assert job.generation + 1 not in list_generations(writer.store)

    lanes.release(is_released=True)
    for _ in range(8):
        writer.maintain()
    assert job.generation not in list_generations(writer.store)


def test_a_clock_that_is_set_back_does_not_stop_the_collection(index: IndexDirectory) -> None:
    now = [time.time() + 7200]
    writer = take_over(index, settings=WriterSettings(retain_for_seconds=60), clock=lambda: now[0])
    for i in "abcd":
        add(writer, [lambda o, i=i: content(i, o)])
        writer.commit()
    now[0] -= 3600
    writer.maintain()
    assert len(list_generations(writer.store)) == 3


def test_a_generation_is_retained_from_when_its_successor_came(index: IndexDirectory) -> None:
    created_at = {1: 0.0, 2: 100.0, 3: 900.0, 4: 901.0, 5: 902.0, 6: 903.0}
    assert retained_generations(created_at, retain_for=600.0, now=1000.0) == {2, 3, 4, 5, 6}
    assert retained_generations(created_at, retain_for=600.0, now=10_000.0) == {4, 5, 6}
    assert retained_generations({}, retain_for=600.0, now=0.0) == set()


def entry(name: str, num_contents: int) -> SegmentEntry:
    return SegmentEntry(name, num_contents, 0, {}, {})


def manifest(*entries: SegmentEntry, dead: dict[str, tuple[int, int]] | None = None) -> Manifest:
    """`dead` maps a segment to the number of its dead rows and the time (ms) of the oldest."""
    tombstones = {i: TombstonesEntry(n, ms) for i, (n, ms) in (dead or {}).items()}
    return Manifest(1, 1, "writer", "nonce", 0, 0, entries, tombstones)


def plans(
    manifest: Manifest, *, busy: tuple[str, ...] = (), now_ms: int = 0, **changes: int
) -> list[set[str]]:
    settings = MergeSettings(**{"merge_factor": 3, **changes})  # type: ignore[arg-type]
    return [set(plan.segment_ids) for plan in plan_merges(manifest, settings, busy=busy, now_ms=now_ms)]


def test_segments_of_one_size_merge_and_others_wait() -> None:
    shown = manifest(entry("a", 10), entry("b", 20), entry("c", 30), entry("big", 5000))
    assert plans(shown) == [{"a", "b", "c"}]
    assert plans(shown, merge_factor=4) == []


def test_a_busy_segment_is_in_no_plan() -> None:
    assert plans(manifest(entry("a", 10), entry("b", 20), entry("c", 30)), busy=("a",)) == []
    shown = manifest(entry("a", 10), dead={"a": (9, 0)})
    assert plans(shown) == [{"a"}]
    assert plans(shown, busy=("a",)) == []


def test_rows_dead_for_too_long_force_a_rewrite() -> None:
    shown = manifest(entry("a", 1000), dead={"a": (1, 5000)})
    assert plans(shown, now_ms=5000 + 57_499, erase_within_seconds=60) == []
    assert plans(shown, now_ms=5000 + 57_500, erase_within_seconds=60) == [{"a"}], "2.5 s for the rewrite"


def test_a_segment_grows_no_bigger_than_its_cap() -> None:
    shown = manifest(*(entry(name, 40) for name in "abcd"))
    assert [len(plan) for plan in plans(shown, max_entries=100)] == [2]
    assert plans(shown, max_entries=60) == []


def test_debt_counts_what_the_tiers_do_not_hold_at_rest() -> None:
    settings = MergeSettings(merge_factor=3)
    assert merge_debt(manifest(entry("a", 1), entry("b", 1)), settings) == 0
    assert merge_debt(manifest(*(entry(name, 1) for name in "abcde")), settings) == 3


def test_shards_that_share_a_lane_take_turns_however_far_one_is_behind(
    root: IndexRoot, lanes: InlineLanes
) -> None:
    index = create_index(root, num_partitions=2)
    settings = WriterSettings(merge=PAIRS)
    behind, other = (take_over(index, partition, lanes=lanes, settings=settings) for partition in (0, 1))
    lanes.release(is_released=True)
    for shard in (behind, other):
        commit(shard, content("a"))
        commit(shard, content("b"))
    behind.maintain()
    for name in "cdef":
        commit(behind, content(name))
    behind.maintain()
    assert not lanes.running(behind.store), "the merge has ended, and the lane is left to others"
    other.maintain()
    behind.maintain()
    assert lanes.running(other.store)
    other.maintain()
    behind.maintain()
    assert lanes.running(behind.store)


def test_a_shard_that_waits_for_a_lane_hurries_the_merge_in_it(root: IndexRoot, lanes: InlineLanes) -> None:
    index = create_index(root, num_partitions=2)
    first, second = (
        take_over(index, partition, lanes=lanes, settings=WriterSettings(merge=replace(PAIRS, max_debt=8)))
        for partition in (0, 1)
    )
    for name in "ab":
        commit(first, content(name))
    first.maintain()
    [worker] = lanes.running(first.store).values()
    assert worker.niceness == 5
    for name in "abcd":
        commit(second, content(name))
    second.maintain()
    assert worker.niceness == 0


@on_a_directory
@pytest.mark.parametrize("seconds_ahead", [-7200.0, 7200.0], ids=["a server that is behind", "one ahead"])
def test_ages_are_told_by_the_clock_that_dates_the_files(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch, seconds_ahead: float
) -> None:
    """The files of a shared file system are dated by its server."""
    now = [time.time()]
    settings = WriterSettings(600.0, collect_every_seconds=0.0)
    writer = take_over(index, settings=settings, clock=lambda: now[0])
    for name in "abcdef":
        commit(writer, content(name))
    for path in path_of(writer).glob("manifest-*"):
        os.utime(path, (now[0] + seconds_ahead, now[0] + seconds_ahead))
    monkeypatch.setattr(LocalShardStore, "seconds_ahead", lambda _: seconds_ahead)
    writer.maintain()
    assert len(list_generations(writer.store)) == 7
    now[0] += 601.0
    writer.maintain()
    assert len(list_generations(writer.store)) == 3


@on_a_directory
def test_the_clock_of_a_local_disk_is_this_machines(writer: ShardWriter) -> None:
    before = set(path_of(writer).iterdir())
    assert abs(writer.store.seconds_ahead()) < 5.0
    assert set(path_of(writer).iterdir()) == before


@on_a_directory
@pytest.mark.parametrize("age", [3600.0, -3600.0], ids=["old files", "young files"])
def test_on_a_full_disk_files_go_on_to_grow_old(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    then = time.time() - age
    os.utime(path_of(writer) / manifest_name(1), (then, then))
    os.utime(path_of(writer), (then, then))
    monkeypatch.setattr(Path, "touch", fail)
    assert abs(writer.store.seconds_ahead()) < 60
    monkeypatch.setattr(os, "utime", fail)
    assert abs(writer.store.seconds_ahead()) < 60
