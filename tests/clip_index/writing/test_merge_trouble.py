"""A merge without room, without memory or without a process, and one that another owner overtakes."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from clip_index.generations import installation
from clip_index.generations.history import list_generations
from clip_index.generations.manifest import pack_name
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.writing import merge_worker
from clip_index.writing.merge import MergeJob, MergeResult, run_merge
from clip_index.writing.merge_policy import MergeLane, MergeSettings
from clip_index.writing.merge_worker import MergeFailed, MergeLanes, MergeTooLarge, MergeWorker
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.failing_disk import fail_for_want_of_room, no_room_to_write
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, path_of, removal, take_over
from tests.clip_index.segments.test_open_files import open_files
from tests.clip_index.writing.test_commit_trouble import live_ids, segment_names


@pytest.fixture
def index(tmp_path: Path) -> IndexDirectory:
    return create_index(tmp_path)


@pytest.fixture
def writer(index: IndexDirectory) -> ShardWriter:
    return take_over(index)


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
