"""Merged segments of all shards share one set of centroids while it fits them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from clip_index.errors import DamagedFile
from clip_index.generations.garbage import GarbageCollector
from clip_index.generations.inspection import Inspection
from clip_index.generations.manifest import CENTROIDS, SegmentEntry, centroids_name
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.segments.segment_files import codes_name
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.local_store import LocalShardStore
from clip_index.vectors import centroid_set, shared_vectors
from clip_index.vectors.centroid_set import CentroidSet
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.queries import Queries
from clip_index.vectors.vector_file import write_fastest
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from cliptide.snapshot.file_copy import copy_files, names_beside
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, path_of, take_over, unit_vectors

PAIRS = MergeSettings(merge_factor=2, max_dead_share=1.0)
CODES = codes_name("image")
HALF = 2_100
"""Rows of a commit. Two of them make a segment that is large enough for lists."""


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Shards:
    """The writers of an index whose merges run when a test says so."""

    def __init__(self, root: Path, num_partitions: int = 2) -> None:
        self.index = create_index(root, num_partitions=num_partitions)
        self.lanes = InlineLanes()
        self.writers = [
            take_over(self.index, p, lanes=self.lanes, settings=WriterSettings(merge=PAIRS))
            for p in range(num_partitions)
        ]

    def commit(self, partition: int, rows: np.ndarray) -> None:
        writer = self.writers[partition]
        first = writer.next_offset
        add(writer, [content(f"{partition}-{first + n}", embeddings=row[None]) for n, row in enumerate(rows)])
        writer.commit()

    def merge(self, partition: int) -> SegmentEntry:
        """Run the merges that are due; return the shard's first segment, which is the merged one."""
        self.lanes.release(is_released=True)
        for _ in range(6):
            self.writers[partition].maintain()
        return self.writers[partition].manifest.segments[0]

    def fill(self, partition: int, seed: int = 0) -> None:
        for half in range(2):
            self.commit(partition, unit_vectors(100 * seed + 10 * partition + half, HALF))


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    return Shards(tmp_path)


def set_of(entry: SegmentEntry) -> FileDigest:
    return entry.centroids["image"]


def searcher_of(root: Path) -> Searcher:
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def lists_of(searcher: Searcher) -> list[InvertedLists]:
    views = (view for shard in searcher.shard_views for view in shard.segments)
    return [lists for view in views if (lists := view.segment.vector_files["image"].lists)]


def set_names(writer: ShardWriter) -> list[str]:
    return sorted(path.stem for path in (path_of(writer) / CENTROIDS).iterdir())


def test_the_first_large_merge_trains_a_set_on_all_shards_and_the_others_adopt_it(
    shards: Shards, tmp_path: Path
) -> None:
    shards.fill(0)
    shards.fill(1)
    first, second = shards.merge(0), shards.merge(1)
    assert set_of(first) == set_of(second)
    assert [set_names(writer) for writer in shards.writers] == [[set_of(first).xxh3_128]] * 2
    one, other = lists_of(searcher_of(tmp_path))
    assert one.shared is other.shared is not None
    assert one.shared.num_lists == int(2 * np.sqrt(4 * HALF))


def test_a_query_ranks_a_shared_set_once_for_all_segments_and_tails(shards: Shards, tmp_path: Path) -> None:
    for partition in range(2):
        shards.fill(partition)
        shards.merge(partition)
        for seed in (70, 80):
            shards.commit(partition, unit_vectors(seed + partition, 600))
    searcher = searcher_of(tmp_path)
    queries = Queries(unit_vectors(1, 3))
    sources = [source for shard in searcher.shard_views for source in shard.sources("image")]
    for source in sources:
        source.search(queries, 10, "image")
    assert [isinstance(source.lists("image"), InvertedLists) for source in sources] == [True] * 4
    assert len(queries._ranked) == 1


def test_a_merge_keeps_the_set_of_its_sources(shards: Shards) -> None:
    shards.fill(0)
    before = set_of(shards.merge(0))
    shards.fill(0, seed=1)
    after = shards.merge(0)
    assert after.num_contents == 4 * HALF
    assert set_of(after) == before


def test_a_merge_looks_for_the_lists_of_those_embeddings_only_of_which_none_are_known(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: list[tuple[int, int]] = []
    find_lists = CentroidSet.lists_of

    def spy(around: CentroidSet, embeddings: NDArray[Any], known: NDArray[Any] | None = None) -> NDArray[Any]:
        looked_for.append((len(embeddings), len(embeddings) if known is None else int((known < 0).sum())))
        return find_lists(around, embeddings, known)

    monkeypatch.setattr(CentroidSet, "lists_of", spy)
    shards.fill(0)
    shards.merge(0)
    shards.commit(0, unit_vectors(0, HALF))  # the same as in the first commit
    shards.commit(0, unit_vectors(7, HALF))
    shards.merge(0)
    assert looked_for == [(2 * HALF, 2 * HALF), (2 * HALF, 0), (3 * HALF, 0)]

    (lists,) = lists_of(searcher_of(tmp_path))
    (view,) = searcher_of(tmp_path).shard_views[0].segments
    nodes = view.segment.vector_files["image"].read_nodes()
    assert lists.shared is not None
    assert (lists.lists_of(np.arange(len(nodes))) == lists.shared.assign(nodes).lists).all()


def test_a_merged_segment_has_codes_beside_its_lists(shards: Shards, tmp_path: Path) -> None:
    shards.fill(0)
    assert not any(segment.has_part(CODES) for segment in shards.writers[0].manifest.segments)
    assert shards.merge(0).has_part(CODES)
    (lists,) = lists_of(searcher_of(tmp_path))
    assert lists.scan_codes is not None
    assert lists.scan_codes.lengths.sum() == 2 * HALF


def test_a_set_of_an_earlier_release_is_searched_and_the_next_merge_trains_one_with_a_codebook(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards.fill(0)
    with monkeypatch.context() as earlier:
        earlier.setattr(centroid_set, "may_have_codes", lambda _: False)
        earlier.setattr(shared_vectors, "may_have_codes", lambda _: False)
        before = shards.merge(0)
    assert not before.has_part(CODES)
    assert len(searcher_of(tmp_path).search(unit_vectors(3), k=10, modality="image")[0]) == 10
    shards.fill(1)
    after = shards.merge(1)
    assert after.has_part(CODES)
    assert set_of(after) != set_of(before)


def test_an_index_that_has_outgrown_its_set_trains_a_larger_one_beside_it(shards: Shards) -> None:
    shards.fill(0)
    before = shards.merge(0)
    for seed in (1, 2, 3, 4):
        shards.fill(1, seed)
    after = shards.merge(1)
    assert set_of(after) != set_of(before)
    assert set_of(after).size_bytes > 1.5 * set_of(before).size_bytes


def test_embeddings_of_another_kind_get_a_set_of_their_own(shards: Shards) -> None:
    for half in range(2):
        alike = unit_vectors(5) + 0.2 * unit_vectors(50 + half, HALF)
        shards.commit(0, alike / np.linalg.norm(alike, axis=1, keepdims=True))
    before = set_of(shards.merge(0))
    shards.fill(1)
    assert set_of(shards.merge(1)) != before


def test_a_shard_that_cannot_be_read_keeps_no_other_from_merging(shards: Shards) -> None:
    shards.fill(0)
    shards.merge(0)
    for path in path_of(shards.writers[0]).glob("manifest-*.json"):
        path.chmod(0o644)
        path.write_bytes(b"no manifest")
    shards.fill(1)
    assert "image" in shards.merge(1).centroids


def test_a_set_that_is_damaged_elsewhere_is_not_adopted(shards: Shards) -> None:
    shards.fill(0)
    damaged = set_of(shards.merge(0))
    spoil(path_of(shards.writers[0]) / centroids_name(damaged))
    shards.fill(1)
    assert set_of(shards.merge(1)) != damaged


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [spoil, Path.unlink], ids=["damaged", "missing"])
def test_a_set_that_is_not_what_its_segment_needs_is_named_by_every_reader(
    shards: Shards, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    shards.fill(0)
    name = centroids_name(set_of(shards.merge(0)))
    harm(path_of(shards.writers[0]) / name)
    with pytest.raises(DamagedFile):
        IndexReader(tmp_path).reload()
    newest = next(Inspection(shards.writers[0].store).newest_first())
    assert newest.damage is not None
    assert name in newest.damage.file


def test_a_writer_refuses_to_take_a_shard_over_whose_set_is_damaged(shards: Shards) -> None:
    shards.fill(0)
    spoil(path_of(shards.writers[0]) / centroids_name(set_of(shards.merge(0))))
    with pytest.raises(DamagedFile, match=CENTROIDS):
        take_over(shards.index, 0)


def test_a_set_goes_when_no_retained_generation_names_it(shards: Shards) -> None:
    writer = shards.writers[0]
    shards.fill(0)
    used = set_of(shards.merge(0)).xxh3_128
    writer.store.ensure(f"{CENTROIDS}/unused.npy", b"of a merge that was never committed")
    later = 10 + max(writer.store.list_times(CENTROIDS).values())
    collector = GarbageCollector(writer.store, retain_for=60.0)
    collector.collect(newest=writer.generation, in_flight=(), now=later)
    assert set_names(writer) == sorted([used, "unused"]), "it is young"
    collector.collect(newest=writer.generation, in_flight=("1-merging",), now=later + 3_600)
    assert set_names(writer) == sorted([used, "unused"]), "a running merge may have chosen it"
    collector.collect(newest=writer.generation, in_flight=(), now=later + 3_600)
    assert set_names(writer) == [used]


def test_a_copy_of_a_generation_has_its_sets_and_is_searched_alone(shards: Shards, tmp_path: Path) -> None:
    shards.fill(0)
    shards.merge(0)
    shards.fill(1)
    shards.merge(1)
    source, target = shards.writers[0].store, LocalShardStore(tmp_path / "copy" / "shard")
    assert isinstance(source, LocalShardStore)
    copy_files(source, target, shards.writers[0].manifest)
    target.ensure(f"{CENTROIDS}/former.npy", b"of a former generation")
    for name in names_beside(target, shards.writers[0].manifest):
        target.remove(name)
    assert set(target.list_names(CENTROIDS)) == set(source.list_names(CENTROIDS))
    shutil.rmtree(path_of(shards.writers[1]))
    assert len(lists_of(searcher_of(tmp_path))) == 1


def test_shared_lists_answer_what_own_lists_and_a_scan_do(shards: Shards, tmp_path: Path) -> None:
    own = create_index(tmp_path / "own", num_partitions=2)
    rows = []
    for partition in range(2):
        shards.fill(partition)
        shards.merge(partition)
        parts = [unit_vectors(10 * partition + half, HALF) for half in range(2)]
        commit_at_once(own, partition, np.concatenate(parts))
        rows += parts
    queries, all_rows = unit_vectors(999, 600), np.concatenate(rows)
    exact = np.sort(queries @ all_rows.T, axis=1)[:, :-11:-1]
    for searcher in (searcher_of(tmp_path), searcher_of(tmp_path / "own")):
        assert all(lists.num_nodes == 2 * HALF for lists in lists_of(searcher))
        answers = searcher.search(queries, k=10, modality="image")
        found = np.array([[hit.score for hit in hits] for hits in answers])
        assert (found >= exact[:, -1:] - 1e-3).mean() >= 0.99
    everything = searcher_of(tmp_path).search(queries[:1], k=len(all_rows) + 1, modality="image")[0]
    assert len(everything) == len(all_rows)
    assert everything == sorted(everything, key=lambda hit: (-hit.score, hit.content_id))


def commit_at_once(index: IndexDirectory, partition: int, rows: np.ndarray) -> None:
    writer = take_over(index, partition, settings=WriterSettings(write_sealed=write_fastest))
    add(writer, [content(f"{partition}-{n}", embeddings=row[None]) for n, row in enumerate(rows)])
    writer.commit()
    writer.close()


def test_a_reload_opens_a_set_once_however_many_segments_use_it(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    read_file = centroid_set.read_file

    def read_and_note(path: Path, digest: FileDigest) -> centroid_set.CentroidFile:
        opened.append(path)
        return read_file(path, digest)

    for partition in range(2):
        shards.fill(partition)
        shards.merge(partition)
    monkeypatch.setattr(centroid_set, "read_file", read_and_note)
    reader = IndexReader(tmp_path, clock=iter(range(0, 10**9, 1000)).__next__)
    reader.reload()
    assert len(opened) == 1
    shards.commit(0, unit_vectors(3, 5))
    reader.reload()
    assert len(opened) == 1
    served = {path.parent.name for path in reader.served_files()}
    assert served == {"segments", CENTROIDS}, "the scrub looks at what is served"


def test_a_broken_row_of_another_shard_stops_no_merge(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    rows = unit_vectors(1, 100)
    rows[7] = np.nan
    shards.commit(0, rows)
    shards.commit(1, unit_vectors(2, HALF))
    shards.commit(1, unit_vectors(3, HALF))
    assert shards.merge(1).centroids


def test_a_collector_that_stood_still_removes_no_set_that_another_owners_merge_has_used_since(
    shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former owner has listed its old, unused sets; then a successor merges, and only then it goes on."""
    writer, listed = shards.writers[0], LocalShardStore.list_times
    data = b"of a generation that is no longer retained"
    for name in ("used again", "unused"):
        writer.store.renew(f"{CENTROIDS}/{name}.npy", data)
        os.utime(path_of(writer) / CENTROIDS / f"{name}.npy", (1.0, 1.0))
    stalled: list[str] = []

    def list_and_stall(store: LocalShardStore, folder: str = "") -> Mapping[str, float]:
        times = listed(store, folder)
        if folder == CENTROIDS and not stalled:
            stalled.append(folder)
            store.renew(f"{CENTROIDS}/used again.npy", data)
        return times

    monkeypatch.setattr(LocalShardStore, "list_times", list_and_stall)
    collector = GarbageCollector(writer.store, retain_for=60.0)
    collector.collect(newest=writer.generation, in_flight=(), now=time.time())
    assert stalled
    assert set_names(writer) == ["used again"]


def test_a_merge_writes_the_set_that_it_shares_again_so_that_it_is_young(shards: Shards) -> None:
    writer = shards.writers[0]
    shards.fill(0)
    path = path_of(writer) / centroids_name(set_of(shards.merge(0)))
    os.utime(path, (1.0, 1.0))
    shards.fill(0, seed=1)
    assert path == path_of(writer) / centroids_name(set_of(shards.merge(0)))
    assert path.stat().st_mtime > 1.0
