"""The process that merges ends with its parent, at whatever moment that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clip_index.indexes.index_directory import IndexDirectory
from clip_index.writing.merge import MergeJob
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.merge_worker import MergeFailed, MergeWorker, _answer, _job_fields
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.shards import add, content, create_index, take_over


def die_with_a_merge_that_is_starting(root: Path) -> None:
    """A process's end: it asks for a merge and is killed before its child can have begun."""
    writer = take_over(create_index(root))
    for name in "ab":
        add(writer, [content(name, writer.next_offset)])
        writer.commit()
    segment_ids = tuple(entry.segment_id for entry in writer.manifest.segments)
    MergeWorker().start(MergeJob(writer.store, writer.generation, segment_ids, "merged", 0))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_merge_whose_parent_dies_while_it_starts_is_not_begun(tmp_path: Path) -> None:
    code = f"from {__name__} import *; die_with_a_merge_that_is_starting(Path({str(tmp_path)!r}))"
    died = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)  # ends with the child
    assert died.returncode == -signal.SIGKILL, died.stderr
    segments = IndexDirectory.open(tmp_path).shard_path(0) / "segments"
    assert len(list(segments.iterdir())) == 2
    assert died.stderr == ""


@pytest.fixture
def writer(tmp_path: Path) -> ShardWriter:
    writer = take_over(create_index(tmp_path))
    for name in "ab":
        add(writer, [content(name, writer.next_offset)])
        writer.commit()
    return writer


def job(writer: ShardWriter, merged_id: str) -> MergeJob:
    segment_ids = tuple(entry.segment_id for entry in writer.manifest.segments)
    return MergeJob(writer.store, writer.generation, segment_ids, merged_id, 0)


def niceness_of(worker: MergeWorker) -> int:
    """Return how much nicer the child is than this process."""
    assert worker._child is not None
    return os.getpriority(os.PRIO_PROCESS, worker._child.pid) - os.getpriority(os.PRIO_PROCESS, 0)


def finish(worker: MergeWorker) -> None:
    while worker.job is not None:
        worker.poll()


def test_merges_yield_to_everything_until_others_wait_for_them(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "setpriority", lambda _, pid, niceness: granted.append((pid, niceness)))
    worker = MergeWorker()
    worker.start(job(writer, "merged"))
    assert worker._child is not None
    worker.hurry(5)
    worker.hurry(8)
    own, pid = os.getpriority(os.PRIO_PROCESS, 0), worker._child.pid
    assert granted == [(pid, min(own + 10, 19)), (pid, own + 5)]  # 19 is the greatest that there is
    worker.kill()


def test_where_the_system_makes_no_process_faster_the_next_merge_runs_in_a_new_one(
    writer: ShardWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_priority = os.setpriority

    def set_as_without_privileges(which: int, who: int, niceness: int) -> None:
        if niceness < os.getpriority(which, who):
            raise PermissionError
        set_priority(which, who, niceness)

    monkeypatch.setattr(os, "setpriority", set_as_without_privileges)
    worker = MergeWorker()
    worker.start(job(writer, "first"))
    assert niceness_of(worker) == 10
    worker.hurry(0)
    assert niceness_of(worker) == 10
    finish(worker)
    worker.start(job(writer, "second"))
    assert niceness_of(worker) == 0
    finish(worker)
    worker.set_niceness(10)
    worker.start(job(writer, "third"))
    assert niceness_of(worker) == 10
    worker.kill()


def test_a_merge_of_embeddings_that_are_no_numbers_says_which_segment_holds_them(writer: ShardWriter) -> None:
    broken = content("broken", writer.next_offset)
    broken.embeddings[:] = np.nan
    add(writer, [broken])
    writer.commit()
    segment_id = writer.manifest.segments[-1].segment_id
    worker = MergeWorker()
    worker.start(job(writer, "merged"))
    with pytest.raises(MergeFailed, match=f"{segment_id} has 1 image embeddings that are not finite"):
        finish(worker)
    worker.kill()


def test_a_merge_that_fails_in_a_way_that_nobody_expects_says_how(writer: ShardWriter) -> None:
    fields = {**_job_fields(job(writer, "merged")), "started_ms": 0, "generation": "none", "row_maps": ""}
    assert "ValueError" in _answer(json.dumps(fields).encode())["error"]


def test_a_segment_that_cannot_be_merged_keeps_no_other_from_merging(tmp_path: Path) -> None:
    now = [0.0]
    settings = WriterSettings(merge=MergeSettings(merge_factor=3, max_dead_share=1.0))
    writer = take_over(create_index(tmp_path), settings=settings, clock=lambda: now[0])
    for name in ("broken", "b", "c"):
        one = content(name, writer.next_offset)
        if name == "broken":
            one.embeddings[:] = np.inf
        add(writer, [one, lambda o, name=name: content(f"{name}-beside", o)])
        writer.commit()
    broken_id = writer.manifest.segments[0].segment_id
    with pytest.raises(MergeFailed, match=broken_id):
        maintain_until(writer, lambda: False)
    add(writer, [lambda o: content("d", o)])
    writer.commit()
    maintain_until(writer, lambda: len(writer.manifest.segments) == 2)
    assert writer.manifest.segment_ids() & {broken_id}
    add(writer, [lambda o: content("broken", o)])
    writer.commit()
    maintain_until(writer, lambda: len(writer.manifest.segments) == 1)
    assert writer.manifest.num_live() == 7
    writer.close()


def maintain_until(writer: ShardWriter, is_done: Callable[[], bool]) -> None:
    while not is_done():
        writer.maintain()


def test_nobody_waits_for_segments_that_cannot_be_merged(tmp_path: Path) -> None:
    settings = WriterSettings(merge=MergeSettings(merge_factor=2, max_dead_share=1.0))
    writer = take_over(create_index(tmp_path), settings=settings)
    for number in range(4):
        one = content(f"broken-{number}", writer.next_offset)
        one.embeddings[:] = np.nan
        add(writer, [one])
        writer.commit()
    assert writer.merge_debt == 3
    while writer.merge_debt:
        with pytest.raises(MergeFailed, match="not finite"):
            maintain_until(writer, lambda: False)
    assert len(writer.manifest.segments) == 4
    writer.close()
