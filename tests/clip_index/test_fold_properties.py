"""However one log is cut into batches, commits, crashes, replays and merges, the index equals the fold."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_index.content import Delta, EncodedContent
from clip_index.fold import UNSEEN, IdState, fold
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.index_roots import IndexRoot
from clip_index.storage.local_store import LocalShardStore
from clip_index.vectors import shared_vectors
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.format_1 import rewrite_as_format_1
from fakes.inline_merges import InlineLanes
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import content, create_index, patch, removal, take_over, unit_vectors

Shown = tuple[int, int]
EAGER_MERGES = WriterSettings(
    merge=MergeSettings(merge_factor=2, floor_entries=2, max_dead_share=0.2),
    max_bitmap_bytes=40,  # two small bitmaps: the dead rows of further segments go to files
)


@dataclass(frozen=True)
class Event:
    """One event of the log: `body` stands for the content and decides its embedding; None deletes.

    With a `mark` it is a patch, which has neither version nor body: the metadata get the mark; 0 removes it.
    """

    content_id: str
    version: int | None
    body: int | None
    mark: int | None = None


ids = st.sampled_from(["a", "b", "c", "d"])
events = st.one_of(
    st.builds(Event, ids, st.none() | st.integers(1, 4), st.none() | st.integers(0, 50)),
    st.builds(Event, ids, st.none(), st.none(), st.integers(0, 3)),
)
# What the writer does between two events of the log.
steps = st.sampled_from(
    [
        "go on",
        "cut",
        "commit",
        "crash",
        "maintain",
        "hold merges",
        "release merges",
        "take over",
        "upgrade",
    ]
)


def folded(log: list[Event]) -> dict[str, Shown]:
    """The definition: content id → body and mark of the live content."""
    states: dict[str, IdState] = {}
    bodies: dict[str, Shown] = {}
    for event in log:
        if event.mark is not None:
            if event.content_id in bodies:
                bodies[event.content_id] = bodies[event.content_id][0], event.mark
            continue
        before = states.get(event.content_id, UNSEEN)
        after = fold(before, version=event.version, is_delete=event.body is None)
        if after is None:
            continue
        states[event.content_id] = after
        bodies.pop(event.content_id, None)
        if event.body is not None:
            bodies[event.content_id] = event.body, 0
    return bodies


def change_of(event: Event, offset: int) -> EncodedContent | object:
    if event.mark is not None:
        marks = {"mark": float(event.mark)} if event.mark else {}
        return patch(event.content_id, offset, metadata=marks, removed=frozenset({"metadata.mark"}))
    if event.body is None:
        return removal(event.content_id, offset, event.version)
    return content(
        event.content_id, offset, version=event.version, seed=event.body, metadata={"body": float(event.body)}
    )


def indexed(root: IndexRoot) -> dict[str, Shown]:
    """What a reader sees: content id → body and mark, checked to be one and the same on every way to it."""
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    searcher = reader.searcher
    seen: dict[str, Shown] = {}
    for hit in searcher.search(content("query").embeddings, k=100, modality="image")[0]:
        stored = searcher.read(hit.location)
        assert hit.content_id not in seen, "found twice"
        body, mark = int(stored.facts.metadata["body"]), int(stored.facts.metadata.get("mark", 0))
        seen[hit.content_id] = body, mark
        assert np.allclose(searcher.embeddings(hit.location), unit_vectors(body), atol=1e-3)
        location = searcher.find(hit.content_id)
        assert location is not None
        assert searcher.read(location) == stored
    assert sum(sum(s.num_contents.values()) for s in searcher.shards.values()) == len(seen)
    return seen


class Replayer:
    """Feeds a log to a writer that is cut, crashed, merged and replaced as the steps say."""

    def __init__(self, index: IndexDirectory, settings: WriterSettings = EAGER_MERGES) -> None:
        self.index = index
        self.settings = settings
        self.lanes = InlineLanes()
        self.lanes.release(is_released=True)
        self.writer = self._take_over()
        self.pending: list[EncodedContent | object] = []

    def run(self, log: list[Event], plan: list[str]) -> None:
        offset = self.writer.next_offset
        position = 0
        while offset < len(log):
            self.pending.append(change_of(log[offset], offset))
            offset += 1
            step = plan[position % len(plan)] if plan else "go on"
            position += 1
            if position > 6 * len(log):
                step = "go on"  # a plan of crashes alone would never end
            offset = self.step(step, offset)
        self.flush(offset)
        self.writer.commit()

    def step(self, step: str, offset: int) -> int:
        if step in ("crash", "take over", "upgrade"):
            if step == "take over":
                self.flush(offset)
            # As if an earlier release had written what is there: none wrote into a bucket.
            if step == "upgrade" and isinstance(self.index.store, LocalShardStore):
                rewrite_as_format_1(self.index.shard_path(0))
            self.pending = []
            self.writer = self._take_over()
            return self.writer.next_offset
        if step != "go on":
            self.flush(offset)
        if step == "commit":
            self.writer.commit()
        elif step == "maintain":
            self.writer.maintain()
        elif step.endswith("merges"):
            self.lanes.release(is_released=step.startswith("release"))
            self.writer.maintain()
        return offset

    def flush(self, offset: int) -> None:
        self.writer.add(Delta(self.writer.next_offset, offset, self.pending))
        self.pending = []

    def _take_over(self) -> ShardWriter:
        for worker in self.lanes.workers:
            worker.kill()
        return take_over(self.index, settings=self.settings, lanes=self.lanes)


def directory(folder: Path) -> IndexRoot:
    return folder


def bucket(folder: Path) -> IndexRoot:
    return object_store(memory_bucket(), "", folder)


on_every_store = pytest.mark.parametrize("new_root", [directory, bucket])
NewRoot = Callable[[Path], IndexRoot]


def index_of(
    log: list[Event], plan: list[str], new_root: NewRoot, settings: WriterSettings = EAGER_MERGES
) -> dict[str, Shown]:
    with tempfile.TemporaryDirectory() as folder:
        root = new_root(Path(folder))
        replayer = Replayer(create_index(root), settings)
        replayer.run(log, plan)
        before_last_merge = indexed(root)
        replayer.lanes.release(is_released=True)
        for _ in range(4):
            replayer.writer.maintain()
        assert indexed(root) == before_last_merge
        return before_last_merge


@on_every_store
@given(st.lists(events, max_size=30), st.lists(steps, max_size=20))
@settings(max_examples=120)
def test_the_index_equals_the_fold(new_root: NewRoot, log: list[Event], plan: list[str]) -> None:
    assert index_of(log, plan, new_root) == folded(log)


@on_every_store
@given(st.lists(events, max_size=30), st.lists(steps, max_size=20))
@settings(max_examples=60)
def test_the_index_equals_the_fold_where_lists_are_quantised(
    new_root: NewRoot, log: list[Event], plan: list[str]
) -> None:
    quantised = replace(EAGER_MERGES, merge=replace(EAGER_MERGES.merge, vectors="sq8"))
    with mock.patch.object(shared_vectors, "MIN_NODES", 2):
        assert index_of(log, plan, new_root, quantised) == folded(log)


@on_every_store
@given(st.data())
@settings(max_examples=60)
def test_distinct_versions_in_any_order_give_the_same_index(new_root: NewRoot, data: st.DataObject) -> None:
    log = [
        Event(content_id, version, body)
        for content_id in ("a", "b")
        for version, body in enumerate(data.draw(st.lists(st.none() | st.integers(0, 50), max_size=6)))
    ]
    shuffled = data.draw(st.permutations(log))
    plan = data.draw(st.lists(steps, max_size=12))
    assert index_of(shuffled, plan, new_root) == folded(log)


@on_every_store
@given(st.lists(st.tuples(events, st.integers(1, 3)), max_size=15), st.lists(steps, max_size=12))
@settings(max_examples=60)
def test_repeating_events_in_place_changes_nothing(
    new_root: NewRoot, log: list[tuple[Event, int]], plan: list[str]
) -> None:
    repeated = [replace(event) for event, times in log for _ in range(times)]
    assert index_of(repeated, plan, new_root) == folded([event for event, _ in log])
