"""A commit stores which lists its embeddings lie in, so that no reader looks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clip_index.errors import DamagedFile
from clip_index.generations.manifest import FORMAT_MAJOR, centroids_name
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.segments.columns import BufferedContent
from clip_index.segments.segment_files import lists_name, nodes_name, rows_from_buffer, vectors_name
from clip_index.segments.segment_parts import SegmentParts
from clip_index.storage.index_roots import IndexRoot
from clip_index.storage.mapped_array import map_array
from clip_index.storage.mapped_part import map_file
from clip_index.vectors.centroid_set import CentroidSet, CentroidSets
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.vector_file import VectorFile
from clip_index.views.snapshot import ShardView
from clip_index.writing.commit_lists import CommitLists
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.object_stores import memory_bucket, object_store
from fakes.shards import add, content, create_index, path_of, take_over, unit_vectors

LISTS = lists_name("image")
HALF = 2_100
"""Rows of a commit. Two of them make a segment that is large enough for lists."""


class Shard:
    """One shard with a merged segment, whose merges run when a test says so."""

    def __init__(self, root: IndexRoot, merge_factor: int = 2) -> None:
        self.lanes = InlineLanes()
        self.root = root
        merge = MergeSettings(merge_factor=merge_factor, max_dead_share=1.0)
        self.writer = take_over(create_index(root), lanes=self.lanes, settings=WriterSettings(merge=merge))
        for seed in range(merge_factor):
            self.commit(unit_vectors(seed, 2 * HALF // merge_factor))
        self.merge()

    def commit(self, rows: np.ndarray, **changes: Any) -> None:
        first = self.writer.next_offset
        items = [content(f"{first + n}", embeddings=row[None], **changes) for n, row in enumerate(rows)]
        add(self.writer, items)
        self.writer.commit()

    def merge(self) -> None:
        self.lanes.release(is_released=True)
        for _ in range(6):
            self.writer.maintain()

    def view(self) -> ShardView:
        return view_of(self.root)


def view_of(root: IndexRoot) -> ShardView:
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher.shard_views[0]


@pytest.fixture
def shard(tmp_path: Path) -> Shard:
    return Shard(tmp_path)


def merged_and_small(view: ShardView) -> tuple[InvertedLists, list[VectorFile]]:
    files = [one.segment.vector_files["image"] for one in view.segments]
    [lists] = [file.lists for file in files if file.lists is not None]
    return lists, [file for file in files if file.is_flat]


def has_lists(writer: ShardWriter) -> list[bool]:
    return [entry.has_part(LISTS) for entry in writer.manifest.segments]


def answers(view: ShardView, queries: np.ndarray) -> list[tuple[list[float], list[str]]]:
    found = Searcher([view], queries.shape[1]).search(queries, k=20, modality="image")
    return [([hit.score for hit in hits], [hit.content_id for hit in hits]) for hits in found]


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def refuse(*_: object) -> None:
    raise AssertionError("lists were looked for")


def test_a_commit_stores_the_lists_that_a_reader_would_find(shard: Shard) -> None:
    for seed in range(3):
        shard.commit(unit_vectors(10 + seed, 40))
    lists, small = merged_and_small(shard.view())
    assert (has_lists(shard.writer), len(small)) == ([False, True, True, True], 3)
    for file in small:
        assert file.lists_around(lists).tolist() == lists.assign(file.read_nodes()).tolist()


def test_a_reload_looks_for_no_list(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    shard.commit(unit_vectors(10, 40))
    monkeypatch.setattr(InvertedLists, "assign", refuse)
    [tail] = shard.view().tails["image"]
    assert tail.lists("image") is not None


def test_answers_are_those_of_an_index_without_stored_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = [tmp_path / "with", tmp_path / "without"]
    for root in roots:
        if root.name == "without":
            monkeypatch.setattr(CommitLists, "listed", lambda _self, rows, _entries: rows)
        shard = Shard(root)
        for seed in range(4):
            shard.commit(unit_vectors(10 + seed, 60))
        assert any(has_lists(shard.writer)) == (root.name == "with")
    queries = np.concatenate([unit_vectors(11, 60)[:20], unit_vectors(99, 20)])
    stored, found = (answers(view_of(root), queries) for root in roots)
    assert stored == found


def test_equal_embeddings_and_windows_have_a_list_for_each_node(shard: Shard) -> None:
    rows = unit_vectors(10, 5)
    shard.commit(np.concatenate([rows, rows[::-1]]))
    lists, [file] = merged_and_small(shard.view())
    assert file.num_nodes == 5
    assert file.lists_around(lists).tolist() == lists.assign(file.read_nodes()).tolist()


def test_a_merge_of_small_segments_keeps_their_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = Shard(tmp_path, merge_factor=3)
    for seed in range(3):
        shard.commit(unit_vectors(10 + seed, 30))
    with monkeypatch.context() as patched:
        patched.setattr(CentroidSet, "nearest", refuse)
        patched.setattr(CentroidSet, "assign", refuse)
        shard.merge()
    lists, [file] = merged_and_small(shard.view())
    assert (file.num_nodes, has_lists(shard.writer)) == (90, [True, False])
    assert file.lists_around(lists).tolist() == lists.assign(file.read_nodes()).tolist()


def test_a_merge_looks_for_the_lists_that_an_earlier_release_has_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = Shard(tmp_path, merge_factor=3)
    shard.commit(unit_vectors(10, 30))
    with monkeypatch.context() as patched:
        patched.setattr(CommitLists, "listed", lambda _self, rows, _entries: rows)
        for seed in (11, 12):
            shard.commit(unit_vectors(seed, 30))
    assert has_lists(shard.writer) == [False, True, False, False]
    shard.merge()
    lists, [file] = merged_and_small(shard.view())
    assert has_lists(shard.writer) == [True, False]
    assert file.lists_around(lists).tolist() == lists.assign(file.read_nodes()).tolist()


def test_a_shard_without_a_merged_segment_stores_no_lists(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path))
    add(writer, [lambda o: content("a", o)])
    writer.commit()
    assert has_lists(writer) == [False]
    assert writer.manifest.segments[0].centroids == {}


def test_segments_with_lists_are_of_the_same_format(shard: Shard) -> None:
    shard.commit(unit_vectors(10, 4))
    merged, small = shard.writer.manifest.segments
    assert small.centroids == merged.centroids
    assert shard.writer.manifest.format_major == FORMAT_MAJOR


@pytest.mark.parametrize("harm", [spoil, Path.unlink], ids=["damaged", "missing"])
def test_a_commit_goes_on_without_lists_if_their_set_cannot_be_read(
    shard: Shard, harm: Callable[[Path], None]
) -> None:
    """Whoever verifies the shard tells of the damage."""
    merged = shard.writer.manifest.segments
    harm(path_of(shard.writer) / centroids_name(merged[0].centroids["image"]))
    rows = rows_from_buffer([BufferedContent(content("a"), None)], [])
    assert CommitLists(shard.writer.store, CentroidSets()).listed(rows, merged) == rows


@pytest.mark.parametrize(
    "lists",
    [np.zeros(4, np.int64), np.zeros(3, np.uint32), np.full(4, 10_000, np.uint32)],
    ids=["another type", "too few", "no list of the set"],
)
def test_lists_that_do_not_fit_are_damage(shard: Shard, tmp_path: Path, lists: np.ndarray) -> None:
    shard.commit(unit_vectors(10, 4))
    segment = shard.view().segments[-1].segment
    parts = SegmentParts(shard.writer.store, segment.entry)
    np.save(tmp_path / "lists.npy", lists)
    nodes, shared = map_array(parts.map(nodes_name("image"))), segment.vector_files["image"].shared
    with pytest.raises(DamagedFile, match=r"lists\.npy"):
        VectorFile(
            parts.map(vectors_name("image")), nodes, shared=shared, listed=map_file(tmp_path / "lists.npy")
        )


def test_a_damaged_copy_of_a_set_is_fetched_again_by_merges_and_commits(tmp_path: Path) -> None:
    shard = Shard(object_store(memory_bucket(), "", tmp_path / "machine"), merge_factor=3)
    for seed in range(3):
        shard.commit(unit_vectors(10 + seed, 30))
    store, digest = shard.writer.store, shard.writer.manifest.segments[0].centroids["image"]
    spoil(store.local_file(centroids_name(digest), digest))
    shard.merge()
    assert has_lists(shard.writer) == [True, False]
    spoil(store.local_file(centroids_name(digest), digest))
    rows = rows_from_buffer([BufferedContent(content("a"), None)], [])
    found = CommitLists(store, CentroidSets()).listed(rows, shard.writer.manifest.segments)
    assert found.vectors["image"].known is not None
