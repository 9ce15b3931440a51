"""A writer on a disk that fails, fills up, or has a second writer on it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from clip_index.errors import CommitUnknown, Fenced
from clip_index.generations import history, installation
from clip_index.generations.history import list_generations
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.manifest import pack_name
from clip_index.reading.index_reader import IndexReader, ShardReader
from clip_index.storage import file_digest, local_store
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.pack import PackWriter
from clip_index.vectors.flat_vectors import write_flat
from clip_index.writing import current_state, merge_worker, shard_state
from clip_index.writing.merge import MergeJob, MergeResult, run_merge
from clip_index.writing.merge_policy import MergeLane, MergeSettings
from clip_index.writing.merge_worker import MergeFailed, MergeLanes, MergeTooLarge, MergeWorker
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.failing_disk import fail, fail_to_fsync_the_shard
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, path_of, removal, take_over, unit_vectors


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    return take_over(index)


def live_ids(index: IndexDirectory) -> set[str]:
    reader = IndexReader(index.path.parent.parent)
    reader.reload()
    assert reader.searcher is not None
    return {hit.content_id for hit in reader.searcher.search(unit_vectors(1), k=100, modality="image")[0]}


def fail_for_want_of_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


def segment_names(writer: ShardWriter) -> set[str]:
    return {path.name for path in (path_of(writer) / "segments").iterdir()}


@pytest.fixture
def two_dead(index: IndexDirectory, writer: ShardWriter) -> ShardWriter:
    """A writer that has committed three contents and buffered the deletes of two."""
    add(writer, [lambda o, i=i: content(i, o) for i in "abc"])
    writer.commit()
    add(writer, [lambda o: removal("a", o), lambda o: removal("b", o)])
    return writer


def fail_to_unlink(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "unlink", fail)
    patch.setattr(os, "unlink", fail)


def fail_to_list(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(history, "list_generations", fail)


@pytest.mark.parametrize("trouble", [fail_to_unlink, fail_to_list])
def test_trouble_behind_the_link_never_looks_like_trouble_before_it(
    index: IndexDirectory,
    two_dead: ShardWriter,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[pytest.MonkeyPatch], None],
) -> None:
    with monkeypatch.context() as patch:
        trouble(patch)
        with contextlib.suppress(CommitUnknown):
            two_dead.commit()
    assert live_ids(index) == {"c"}
    assert take_over(index).next_offset == 5


def test_a_segment_that_cannot_be_opened_is_never_committed(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(two_dead, [lambda o: content("d", o)])
    before = segment_names(two_dead)
    with monkeypatch.context() as patch:
        patch.setattr(shard_state, "Segment", fail)
        with pytest.raises(OSError, match="input/output"):
            two_dead.commit()
    assert live_ids(index) == {"a", "b", "c"}
    assert segment_names(two_dead) == before, "an attempt that failed leaves no segment on a full disk"
    two_dead.commit()
    assert live_ids(index) == {"c", "d"}


def test_a_writer_that_goes_on_after_an_unknown_outcome_harms_nothing(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next commit has the number, and so once had the file names, of the one on disk."""
    with monkeypatch.context() as patch:
        fail_to_fsync_the_shard(patch)
        with pytest.raises(CommitUnknown):
            two_dead.commit()
    add(two_dead, [lambda o: removal("c", o)])
    with pytest.raises(CommitUnknown, match="is not the newest"):
        two_dead.commit()
    assert live_ids(index) == {"c"}


def test_tombstones_left_by_a_failed_commit_do_not_stop_the_next(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail_for_want_of_room)
        with pytest.raises(OSError, match="no space"):
            two_dead.commit()
    add(two_dead, [lambda o: removal("c", o)])
    two_dead.commit()
    assert live_ids(index) == set()


def no_room_to_write(patch: pytest.MonkeyPatch) -> None:
    write_file = local_store.write_file

    def fail_for_manifests(path: Path, data: bytes) -> None:
        fail_for_want_of_room() if "manifest-" in path.name else write_file(path, data)

    patch.setattr(local_store, "write_file", fail_for_manifests)


def no_room_to_link(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "link", fail_for_want_of_room)


@pytest.mark.parametrize("trouble", [no_room_to_write, no_room_to_link])
def test_a_manifest_without_room_leaves_no_segment_behind(
    index: IndexDirectory,
    two_dead: ShardWriter,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[pytest.MonkeyPatch], None],
) -> None:
    add(two_dead, [lambda o: content("d", o)])
    before = segment_names(two_dead)
    with monkeypatch.context() as patch:
        trouble(patch)
        for _ in range(3):
            with pytest.raises(OSError, match="no space"):
                two_dead.commit()
    assert segment_names(two_dead) == before
    two_dead.commit()
    assert live_ids(index) == {"c", "d"}


def no_room_for_tombstones(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(installation, "write_tombstones", fail_for_want_of_room)


@pytest.mark.parametrize("trouble", [no_room_to_write, no_room_for_tombstones])
def test_a_merge_without_room_for_its_commit_leaves_no_segment_behind_and_rests(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[pytest.MonkeyPatch], None]
) -> None:
    lanes, now = InlineLanes(), [time.time()]
    settings = WriterSettings(merge=MergeSettings(merge_factor=2, max_dead_share=1.0))
    writer = take_over(index, lanes=lanes, settings=settings, clock=lambda: now[0])
    for name in "ab":
        add(writer, [lambda o, name=name: content(name, o), lambda o, name=name: content(name * 2, o)])
        writer.commit()
    writer.maintain()
    add(writer, [lambda o: removal("a", o)])
    writer.commit()
    before = segment_names(writer)
    lanes.release(is_released=True)
    with monkeypatch.context() as patch:
        trouble(patch)
        with pytest.raises(OSError, match="no space"):
            writer.maintain()
        writer.maintain()
        assert not lanes.running(writer.store), "it would be merged again for nothing, and at once"
    assert len(segment_names(writer)) == len(before) - 1, "the merged segment is gone"
    assert live_ids(index) == {"aa", "b", "bb"}
    now[0] += 1
    writer.maintain()
    writer.maintain()
    assert len(writer.manifest.segments) == 1
    assert live_ids(index) == {"aa", "b", "bb"}


def no_processes(patch: pytest.MonkeyPatch) -> None:
    def fail_to_fork(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "resource temporarily unavailable")

    patch.setattr(subprocess, "Popen", fail_to_fork)


def a_process_that_is_gone(patch: pytest.MonkeyPatch) -> None:
    start_child = merge_worker._start_child

    def start_and_kill() -> subprocess.Popen[bytes]:
        child = start_child()
        child.kill()
        child.wait()
        return child

    patch.setattr(merge_worker, "_start_child", start_and_kill)


@pytest.mark.parametrize("trouble", [no_processes, a_process_that_is_gone])
def test_a_merge_that_cannot_be_begun_has_failed_and_garbage_is_collected_meanwhile(
    index: IndexDirectory, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[pytest.MonkeyPatch], None]
) -> None:
    now = [time.time() + 3600]
    settings = WriterSettings(60, collect_every_seconds=0, merge=MergeSettings(merge_factor=2))
    writer = take_over(index, settings=settings, clock=lambda: now[0])
    for name in "abcd":
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    with monkeypatch.context() as patch:
        trouble(patch)
        with pytest.raises(MergeFailed):
            writer.maintain()
        now[0] += 0.5
        writer.maintain()
        assert len(list_generations(writer.store)) == 3
        now[0] += 1
        with pytest.raises(MergeFailed):
            writer.maintain()
    writer.close()


def test_row_maps_that_cannot_be_read_are_a_failed_merge(writer: ShardWriter) -> None:
    worker = MergeWorker()
    for name in "ab":
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    segment_ids = tuple(entry.segment_id for entry in writer.manifest.segments)
    worker.start(MergeJob(writer.store, writer.generation, segment_ids, "1-merged", 0))
    maps: list[Path] = []
    while not maps:
        maps = list((path_of(writer) / "segments").glob(".tmp-rows-*.npz"))
    maps[0].unlink()
    with pytest.raises(MergeFailed, match="No such file"):
        wait_for(worker)
    worker.kill()


class FailingWorker(MergeWorker):
    """Fails every merge until it is repaired."""

    def __init__(self) -> None:
        super().__init__()
        self.num_attempts = 0
        self.is_repaired = False

    def start(self, job: MergeJob) -> None:
        self._job = job
        self.num_attempts += 1

    def poll(self) -> MergeResult | None:
        job, self._job = self._job, None
        if job is None or self.is_repaired:
            return job and run_merge(job)
        raise MergeFailed("no space left on device")

    def kill(self) -> None:
        self._job = None


class DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def four_small(index: IndexDirectory) -> tuple[ShardWriter, InlineLanes, list[float]]:
    """A shard of four segments, of which two are a merge; its lanes, and its clock."""
    now, lanes = [time.time()], InlineLanes()
    settings = WriterSettings(merge=MergeSettings(merge_factor=2, large_entries=2))
    writer = take_over(index, lanes=lanes, settings=settings, clock=lambda: now[0])
    for name in "abcd":
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    return writer, lanes, now


def test_a_merge_that_has_no_room_on_the_disk_is_not_begun_until_it_has(
    four_small: tuple[ShardWriter, InlineLanes, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, lanes, now = four_small
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: DiskUsage(10**9, 10**9 - 1_000, 1_000))
        with pytest.raises(MergeFailed, match=r"a merge needs 0 MB of the disk, where 0 MB are free"):
            writer.maintain()
        assert not lanes.running(writer.store)
        writer.maintain()  # the lane rests, so that it says so once a minute and not in every round
        add(writer, [lambda o: content("e", o)])
        writer.commit()
    now[0] += 60
    writer.maintain()
    assert lanes.running(writer.store)


class TooSmallWorker(MergeWorker):
    """Has memory for two contents."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def start(self, job: MergeJob) -> None:
        self._job = job
        self.sizes.append(len(job.segment_ids))

    def poll(self) -> MergeResult | None:
        job, self._job = self._job, None
        if job is not None and len(job.segment_ids) > 2:
            raise MergeTooLarge("not enough memory")
        return job and run_merge(job)

    def kill(self) -> None:
        self._job = None


def test_after_a_merge_that_lacked_memory_smaller_ones_are_made(index: IndexDirectory) -> None:
    now, lanes = [time.time()], MergeLanes(TooSmallWorker)
    settings = WriterSettings(merge=MergeSettings(merge_factor=4, large_entries=2))
    writer = take_over(index, lanes=lanes, settings=settings, clock=lambda: now[0])
    for name in "abcd":
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    writer.maintain()
    with pytest.raises(MergeTooLarge):
        writer.maintain()
    for _ in range(4):
        now[0] += 60
        writer.maintain()
    large = lanes.worker(MergeLane.LARGE)
    assert isinstance(large, TooSmallWorker)
    assert large.sizes[:2] == [4, 2]
    assert live_ids(index) == set("abcd")


def test_a_merge_process_that_the_kernel_kills_was_too_large(writer: ShardWriter) -> None:
    worker = MergeWorker()
    for name in "ab":
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    segment_ids = tuple(entry.segment_id for entry in writer.manifest.segments)
    worker.start(MergeJob(writer.store, writer.generation, segment_ids, "1-merged", 0))
    assert worker._child is not None
    worker._child.kill()
    with pytest.raises(MergeTooLarge, match="was killed"):
        wait_for(worker)
    worker.kill()


class DyingWorker(MergeWorker):
    """Its child dies: while it writes the merged segment, or when that is complete."""

    def start(self, job: MergeJob) -> None:
        self._job = job
        merged = Path(job.store.address) / pack_name(job.merged_id)
        job.store.staging_path(pack_name(job.merged_id)).touch()
        run_merge(replace(job, merged_id=f"{job.merged_id}x"))
        os.rename(merged.with_name(f"{job.merged_id}x.pack"), merged)

    def poll(self) -> MergeResult | None:
        self._job = None
        raise MergeFailed("the merge process died")

    def kill(self) -> None:
        self._job = None


def test_a_merge_that_died_leaves_nothing_that_fills_the_disk(index: IndexDirectory) -> None:
    """Else each attempt's, one a minute, would stay until it is old enough to be garbage."""
    lanes = MergeLanes(DyingWorker)
    writer = take_over(index, lanes=lanes, settings=WriterSettings(merge=MergeSettings(merge_factor=2)))
    for name in "ab":
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    before = segment_names(writer)
    writer.maintain()
    assert len(segment_names(writer)) == 4
    with pytest.raises(MergeFailed):
        writer.maintain()
    assert segment_names(writer) == before
    assert live_ids(index) == {"a", "b"}


def test_a_segment_whose_name_is_not_durable_is_not_left_behind(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(two_dead, [lambda o: content("d", o)])
    before, fsync_path = segment_names(two_dead), local_store.fsync_path

    def fail_for_the_last(path: Path) -> None:
        fail() if path.name == "segments" else fsync_path(path)

    with monkeypatch.context() as patch:
        patch.setattr(local_store, "fsync_path", fail_for_the_last)
        with pytest.raises(OSError, match="input/output"):
            two_dead.commit()
    assert segment_names(two_dead) == before
    two_dead.commit()
    assert live_ids(index) == {"c", "d"}


def test_a_merge_that_fails_is_tried_again_less_and_less_often(index: IndexDirectory) -> None:
    now, lanes = [1_000_000.0], MergeLanes(FailingWorker)
    small = lanes.worker(MergeLane.SMALL)
    assert isinstance(small, FailingWorker)
    settings = WriterSettings(merge=MergeSettings(merge_factor=2))
    writer = take_over(index, lanes=lanes, settings=settings, clock=lambda: now[0])
    for name in "ab":
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    num_failed = 0
    for _ in range(3000):
        now[0] += 0.1
        try:
            writer.maintain()
        except MergeFailed:
            num_failed += 1
    assert num_failed == small.num_attempts
    assert 9 <= num_failed <= 11, "after 1, 2, 4, 8, 16, 32, 60, 60 … seconds"
    small.is_repaired = True
    now[0] += 60
    writer.maintain()
    writer.maintain()
    assert len(writer.manifest.segments) == 1
    assert live_ids(index) == {"a", "b"}
    small.is_repaired, before = False, small.num_attempts
    add(writer, [lambda o: content("c", o)])
    writer.commit()
    writer.maintain()
    assert small.num_attempts == before + 1, "a merge that ended well ends the wait"


def link_and_report_an_error(patch: pytest.MonkeyPatch) -> None:
    link = os.link

    def failing_link(source: Path, target: Path) -> None:
        link(source, target)
        patch.setattr(LocalShardStore, "read", fail)
        fail()

    patch.setattr(os, "link", failing_link)


def lose_the_race_and_fail_to_read(patch: pytest.MonkeyPatch) -> None:
    """The link has happened, a greater generation is there, and then the disk does not answer."""
    patch.setattr(history, "_list_newest", lambda *_: 10**9)
    patch.setattr(current_state, "read_newest", fail)


@pytest.mark.parametrize(
    "trouble", [fail_to_fsync_the_shard, link_and_report_an_error, lose_the_race_and_fail_to_read]
)
def test_behind_the_link_no_error_deletes_what_the_manifest_may_name(
    index: IndexDirectory,
    two_dead: ShardWriter,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Callable[[pytest.MonkeyPatch], None],
) -> None:
    add(two_dead, [lambda o: content("d", o)])
    before = segment_names(two_dead)
    with monkeypatch.context() as patch:
        trouble(patch)
        with pytest.raises((CommitUnknown, OSError)):
            two_dead.commit()
    assert len(segment_names(two_dead) - before) == 1
    assert live_ids(index) == {"c", "d"}


def test_a_link_that_may_still_be_on_its_way_leaves_the_outcome_unknown(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network file system does it: the caller is told of an error, the server goes on."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "link", fail)
        with pytest.raises(CommitUnknown, match="input/output error"):
            two_dead.commit()
    assert live_ids(index) == {"a", "b", "c"}
    assert take_over(index).next_offset == 3


def test_a_link_that_happened_in_spite_of_its_error_is_a_commit(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_and_fail(source: Path, target: Path) -> None:
        link(source, target)
        fail()

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link_and_fail)
        assert two_dead.commit() == 5
    assert live_ids(index) == {"c"}


def test_our_own_manifest_that_was_misread_once_leaves_the_outcome_unknown(
    index: IndexDirectory, two_dead: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, read, misread = os.link, LocalShardStore.read, []

    def link_and_fail(source: Path, target: Path) -> None:
        link(source, target)
        fail()

    def misread_once(store: LocalShardStore, name: str) -> bytes:
        if not misread:
            misread.append(name)
            return b""
        return read(store, name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", link_and_fail)
        patch.setattr(LocalShardStore, "read", misread_once)
        with pytest.raises(CommitUnknown, match="our own manifest"):
            two_dead.commit()
    assert live_ids(index) == {"c"}


def test_a_fenced_writer_that_maintains_deletes_nothing_and_learns_of_it(index: IndexDirectory) -> None:
    settings = WriterSettings(retain_for_seconds=0, collect_every_seconds=0)
    former = take_over(index, settings=settings, clock=lambda: time.time() + 3600)
    successor = take_over(index)
    under_way = path_of(successor) / "segments" / ".tmp-2-a-merge-of-the-successor"
    under_way.mkdir()
    for i in range(4):
        add(successor, [lambda o, i=i: content(f"{i}", o)])
        successor.commit()
    before = list_generations(successor.store)
    with pytest.raises(Fenced, match="own writer epoch 1, found 2"):
        former.maintain()
    assert under_way.exists()
    assert list_generations(successor.store) == before


def test_a_former_writers_merge_in_the_same_process_is_never_committed(index: IndexDirectory) -> None:
    lanes = InlineLanes()
    settings = WriterSettings(merge=MergeSettings(merge_factor=2))
    former = take_over(index, settings=settings, lanes=lanes)
    for i in range(2):
        add(former, [lambda o, i=i: content(f"{i}", o)])
        former.commit()
    former.maintain()
    assert lanes.running(former.store)
    elsewhere = InlineLanes()
    elsewhere.release(is_released=True)
    other = take_over(index, settings=settings, lanes=elsewhere)
    other.maintain()
    other.maintain()
    assert len(other.manifest.segments) == 1
    again = take_over(index, settings=settings, lanes=lanes)
    lanes.release(is_released=True)
    again.maintain()
    assert live_ids(index) == {"0", "1"}
    assert again.manifest.segments == other.manifest.segments


def test_rows_that_died_during_a_merge_are_as_old_as_the_merge_not_as_those_it_dropped(
    index: IndexDirectory,
) -> None:
    """Else a big segment under a stream of deletes would be rewritten without an end."""
    now = [1_000_000.0]
    lanes = InlineLanes()
    merge = MergeSettings(merge_factor=100, max_dead_share=0.9, erase_within_seconds=3600)
    writer = take_over(index, lanes=lanes, settings=WriterSettings(merge=merge), clock=lambda: now[0])
    add(writer, [lambda o, i=i: content(f"{i}", o) for i in range(5)])
    writer.commit()
    add(writer, [lambda o: removal("0", o)])
    writer.commit()
    now[0] += 4000
    writer.maintain()
    assert lanes.running(writer.store)
    add(writer, [lambda o: removal("1", o)])
    writer.commit()
    lanes.release(is_released=True)
    now[0] += 10
    writer.maintain()
    [dead] = writer.manifest.tombstones.values()
    assert (dead.num_dead, dead.oldest_dead_ms) == (1, 1_004_000_000)
    assert not lanes.running(writer.store)


def test_a_directory_that_a_dead_process_made_is_made_durable_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[tuple[int, int]] = set()
    fsync = os.fsync

    def record(descriptor: int) -> None:
        status = os.fstat(descriptor)
        synced.add((status.st_dev, status.st_ino))
        fsync(descriptor)

    root = tmp_path / "root"
    create_index(root)
    shard = root / "indexes" / "main" / "content-uploads-0"
    shard.mkdir()
    monkeypatch.setattr(os, "fsync", record)
    take_over(create_index(root))
    for directory in (tmp_path, root, root / "indexes", root / "indexes" / "main", shard):
        status = directory.stat()
        assert (status.st_dev, status.st_ino) in synced, directory


def test_a_shard_that_moved_before_another_failed_is_served_by_the_next_reload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = create_index(tmp_path, num_partitions=2)
    reader = IndexReader(tmp_path)
    writer = take_over(index, 0)
    reader.reload()
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    reload = ShardReader.reload

    def fail_for_the_second(shard: ShardReader) -> bool:
        return fail() if shard.view.name.endswith("-1") else reload(shard)  # type: ignore[return-value]

    with monkeypatch.context() as patch:
        patch.setattr(ShardReader, "reload", fail_for_the_second)
        with pytest.raises(OSError, match="input/output"):
            reader.reload()
    assert reader.reload() is True
    assert reader.searcher is not None
    assert reader.searcher.find("a") is not None


def test_a_shard_that_the_disk_does_not_read_keeps_no_other_from_moving_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = create_index(tmp_path, num_partitions=2)
    writers = [take_over(index, partition) for partition in range(2)]
    reader = IndexReader(tmp_path)
    reader.reload()
    for writer, name in zip(writers, "ab", strict=True):
        add(writer, [lambda o, name=name: content(name, o)])
        writer.commit()
    verify_file = file_digest.verify_file

    def fail_for_the_first(path: Path, digest: file_digest.FileDigest) -> None:
        fail() if path_of(writers[0]) in path.parents else verify_file(path, digest)

    with monkeypatch.context() as patch:
        patch.setattr(file_digest, "verify_file", fail_for_the_first)
        with pytest.raises(OSError, match="input/output"):
            reader.reload()
        assert reader.searcher is not None
        assert [reader.searcher.find(name) is not None for name in "ab"] == [False, True]
    reader.reload()
    assert [reader.searcher.find(name) is not None for name in "ab"] == [True, True]


def test_a_watermark_that_the_disk_does_not_read_hides_no_content(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    (path_of(writer) / "watermark.json").mkdir()
    assert live_ids(index) == {"a"}


@contextlib.contextmanager
def small_files(size: int) -> Iterator[None]:
    """Let no file grow beyond a size, as on a full disk; the kernel's signal is ignored.

    No longer than for a call: what reports on the tests may go to a file as well.
    """
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("num_rows", [20, 20_000])
def test_a_vector_file_that_the_disk_does_not_take_is_an_os_error(tmp_path: Path, num_rows: int) -> None:
    """The small one is lost where its file is closed, which FAISS's own writer would only print."""
    embeddings = np.zeros((num_rows, 16), np.float16)
    with small_files(500), pytest.raises(OSError, match="File too large"):
        with PackWriter(tmp_path / "pack") as pack, pack.part("image.faiss") as file:
            write_flat(file, embeddings)


def open_files() -> set[str]:
    """What the descriptors of this process lead to; pipes have numbers for names."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own, and what is closed meanwhile
            found.add(os.readlink(descriptor))
    return found


def test_an_opened_segment_holds_no_file_descriptor(writer: ShardWriter) -> None:
    for i in range(10):
        image = content(f"{i}", writer.next_offset, owner_id="ann", thumbnail=b"webp")
        text = content(f"t{i}", writer.next_offset + 1, modality="text", text="t")
        add(writer, [image, text, lambda o, i=i: removal(f"gone-{i}", o, version=1)])
        writer.commit()
    assert [name for name in open_files() if name.startswith(str(path_of(writer)))] == []


def open_pipes() -> set[str]:
    return {name for name in open_files() if name.startswith("pipe:")}


def wait_for(worker: MergeWorker) -> None:
    while worker.poll() is None:
        time.sleep(0.01)


def test_a_merge_is_polled_where_descriptors_pass_those_that_select_can_wait_for(
    index: IndexDirectory, writer: ShardWriter
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1400:
        pytest.skip("the limit of open files cannot be raised to 1,400 here (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1400), hard))
    held = [os.dup(0) for _ in range(1100)]
    worker = MergeWorker()
    try:
        worker.start(MergeJob(writer.store, 10**6, (), "1-none", 0))
        with pytest.raises(MergeFailed, match="FileNotFoundError"):
            wait_for(worker)
    finally:
        worker.kill()
        for descriptor in held:
            os.close(descriptor)


def test_a_merge_process_that_died_is_replaced_and_leaves_no_pipe(writer: ShardWriter) -> None:
    worker = MergeWorker()
    before = open_pipes()
    job = MergeJob(writer.store, 10**6, (), "1-none", 0)
    for _ in range(2):
        worker.start(job)
        child = worker._child
        assert child is not None
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(MergeFailed, match="died"):
            wait_for(worker)
        child.wait()
    assert len(open_pipes() - before) == 2
    worker.kill()
    assert open_pipes() <= before  # another's may have been closed meanwhile


@pytest.mark.skipif(sys.platform != "linux", reason="other kernels choose by other rules")
def test_where_memory_ends_the_merge_process_goes_first(writer: ShardWriter) -> None:
    """The consumer's own end would be blamed on the contents that it handles."""
    worker = MergeWorker()
    worker.start(MergeJob(writer.store, 10**6, (), "1-none", 0))
    with pytest.raises(MergeFailed):
        wait_for(worker)
    assert worker._child is not None
    assert Path(f"/proc/{worker._child.pid}/oom_score_adj").read_text().strip() == "1000"
    worker.kill()
