"""How a writer indexes a log here, and the checks that must hold of the index at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from clip_index.content import MODALITIES, Delta
from clip_index.generations.garbage import names_of
from clip_index.generations.history import list_generations, read_manifest
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.index_roots import IndexRoot, open_root
from clip_index.vectors import shared_vectors
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.merge_worker import MergeLanes
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from crashes.small_log import Log, folded
from fakes.format_1 import rewrite_as_format_1
from fakes.inline_merges import InlineLanes
from fakes.shards import create_index, take_over, unit_vectors

BATCH = 4
_FEW_NODES = 2
_MOST_UNDER_WAY = 4  # each of the two merge lanes may leave a merged segment and its row maps
SETTINGS = WriterSettings(
    retain_for_seconds=0.0,
    collect_every_seconds=0.0,
    max_bitmap_bytes=40,  # two small bitmaps, so that some dead rows are in manifests and some in files
    merge=MergeSettings(merge_factor=2, floor_entries=8, max_dead_share=0.4),
)

QUANTISED = replace(SETTINGS, merge=replace(SETTINGS.merge, vectors="sq8"))

Acknowledge = Callable[[int, int], None]
"""Called with a generation and its next offset once the writer knows that both are durable."""


class Violation(Exception):
    """The index differs from the fold of its log, or an acknowledged commit is missing."""


def live(
    root: IndexRoot,
    log: Log,
    acknowledge: Acknowledge,
    lanes: MergeLanes | None = None,
    *,
    settings: WriterSettings = SETTINGS,
) -> None:
    """Take the shard over and index the rest of the log, with merges and garbage collection."""
    lanes = lanes or inline_lanes()
    index = create_index(root)
    writer = take_over(index, settings=settings, lanes=lanes, clock=lambda: time.time() + 1)
    acknowledge(writer.generation, writer.committed_next_offset)
    try:
        while writer.next_offset < len(log):
            _commit_batch(writer, log)
            acknowledge(writer.generation, writer.committed_next_offset)
            writer.maintain()
            acknowledge(writer.generation, writer.committed_next_offset)
        writer.maintain()
    finally:
        writer.close()


def _commit_batch(writer: ShardWriter, log: Log) -> None:
    first = writer.next_offset
    last = min(first + BATCH, len(log))
    writer.add(Delta(first, last, log[first:last]))
    writer.commit()
    writer.renew_watermark(first)


@contextmanager
def small_lists() -> Iterator[None]:
    """Let merges in this process and in its forks build lists of a handful of rows."""
    with mock.patch.object(shared_vectors, "MIN_NODES", _FEW_NODES):
        yield


def inline_lanes() -> InlineLanes:
    lanes = InlineLanes()
    lanes.release(is_released=True)
    return lanes


def go_back_to_format_1(root: Path) -> None:
    """Leave the index as an earlier release had written it, so that the next life begins in format 1."""
    [shard] = (root / "indexes" / "main").glob("content-uploads-*")
    rewrite_as_format_1(shard)


def has_index(root: IndexRoot) -> bool:
    return any(name.startswith("current-") for name in open_root(root).list_names())


def open_and_check(root: IndexRoot, log: Log) -> tuple[int, int]:
    """Check with a fresh reader. Return the generation and next offset, (0, 0) without an index."""
    if not has_index(root):
        return 0, 0
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    check(reader.searcher, log)
    [snapshot] = reader.searcher.shards.values()
    return snapshot.generation, snapshot.next_offset


def recover_and_check(root: IndexRoot, log: Log, settings: WriterSettings = SETTINGS) -> None:
    """Let a new writer finish the log, and check with a reader that was opened before it."""
    reader = IndexReader(root, clock=_Ticks().tick)
    if has_index(root):
        reader.reload()
    live(root, log, lambda generation, next_offset: None, settings=settings)
    reader.reload()
    assert reader.searcher is not None
    check(reader.searcher, log)
    [snapshot] = reader.searcher.shards.values()
    if snapshot.next_offset != len(log):
        raise Violation(f"the log ends at {len(log)}, the index at {snapshot.next_offset}")
    _check_leftovers(root)


class _Ticks:
    """A clock that moves so far at each reading that a reader lists each time."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def tick(self) -> float:
        self._seconds += 10.0
        return self._seconds


def check(searcher: Searcher, log: Log) -> None:
    """Raise `Violation` unless the index is the fold of its log: each content once, equal embeddings."""
    [snapshot] = searcher.shards.values()
    expected = folded(log[: snapshot.next_offset])
    found: dict[str, int] = {}
    for modality in MODALITIES:
        for hit in searcher.search(unit_vectors(1), k=100, modality=modality)[0]:
            if hit.content_id in found:
                raise Violation(f"{hit.content_id} is found twice")
            found[hit.content_id] = searcher.read(hit.location).offset
            embeddings = searcher.embeddings(hit.location)
            if not np.allclose(embeddings, expected[hit.content_id].embeddings, atol=2e-3):
                raise Violation(f"{hit.content_id} has other embeddings")
    if found != (wanted := {content_id: content.offset for content_id, content in expected.items()}):
        raise Violation(f"at {snapshot.next_offset} the index holds {found}, the log {wanted}")
    if sum(snapshot.num_contents.values()) != len(expected):
        raise Violation(f"{snapshot.num_contents} counted, {len(expected)} alive")


def _check_leftovers(root: IndexRoot) -> None:
    """Raise `Violation` when crashes left more segments than running merges explain."""
    store = IndexDirectory.open(root).shard_store(0)
    named = {name for g in list_generations(store) for name in names_of(read_manifest(store, g))}
    unnamed = {f"segments/{name}" for name in store.list_names("segments")} - named
    if len(unnamed) > _MOST_UNDER_WAY:
        raise Violation(f"{len(unnamed)} entries of segments/ stay that no generation names")
