"""The process that merges ends with its parent, at whatever moment that dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from clip_index.generations.index_directory import IndexDirectory
from clip_index.writing.merge import MergeJob
from clip_index.writing.merge_worker import MergeWorker
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
