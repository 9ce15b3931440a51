"""Merges that quantise lists: both forms live side by side, and no merge loses a bit of an embedding."""

from __future__ import annotations

import json

import pytest

from clip_index.content import VectorForm
from clip_index.errors import DamagedFile, OtherFormat
from clip_index.generations import history, manifest_format
from clip_index.generations.inspection import Inspection
from clip_index.generations.manifest import EMBEDDINGS_SUFFIX, SegmentEntry
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.segments.segment import Segment
from clip_index.storage.index_roots import IndexRoot
from clip_index.vectors import shared_vectors
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.merge_worker import MergeWorker
from clip_index.writing.shard_merges import MergeJob
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import add, content, create_index, removal, take_over, unit_vectors
from tests.fixtures.roots import on_a_directory

NUM_ROWS = 40


@pytest.fixture(autouse=True)
def _small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_vectors, "MIN_NODES", 8)


@pytest.fixture
def root(root: IndexRoot) -> IndexRoot:
    create_index(root)
    return root


def own(root: IndexRoot, vectors: VectorForm) -> ShardWriter:
    lanes = InlineLanes()
    lanes.release(is_released=True)
    merge = MergeSettings(merge_factor=2, floor_entries=1_000, max_dead_share=1.0, vectors=vectors)
    return take_over(IndexDirectory.open(root), settings=WriterSettings(merge=merge), lanes=lanes)


def commit(writer: ShardWriter, seed: int) -> None:
    first = writer.next_offset
    rows = unit_vectors(seed, NUM_ROWS)
    add(writer, [content(f"{first + n:04}", embeddings=row[None]) for n, row in enumerate(rows)])
    writer.commit()


def merged(writer: ShardWriter) -> SegmentEntry:
    """Run what is due until one segment is left."""
    for _ in range(8):
        writer.maintain()
    [entry] = writer.manifest.segments
    return entry


def searcher_of(root: IndexRoot) -> Searcher:
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def answers(root: IndexRoot) -> list[list[tuple[float, str]]]:
    found = searcher_of(root).search(unit_vectors(99, 10), k=25, modality="image")
    return [[(hit.score, hit.content_id) for hit in hits] for hits in found]


def embeddings_of(writer: ShardWriter) -> dict[str, bytes]:
    segments = [Segment(writer.store, entry) for entry in writer.manifest.segments]
    rows = [(segment, row) for segment in segments for row in range(segment.num_rows)]
    return {segment.content_id(row): segment.embeddings(row).tobytes() for segment, row in rows}


def test_quantised_and_other_segments_answer_side_by_side_as_embeddings_do(root: IndexRoot) -> None:
    writer = own(root, "sq8")
    for seed in range(2):
        commit(writer, seed)
    expected = answers(root)
    quantised = merged(writer)
    assert quantised.is_quantised
    assert answers(root) == expected
    commit(writer, 2)
    both = answers(root)
    assert [entry.is_quantised for entry in writer.manifest.segments] == [True, False]
    before = embeddings_of(writer)
    successor = own(root, "fp16")
    assert successor.manifest.segments[0] == quantised, "a changed setting rewrites nothing"
    commit(successor, 3)
    with_fourth = answers(root)
    entry = merged(successor)
    assert not entry.is_quantised
    assert answers(root) == with_fourth != both
    assert before.items() <= embeddings_of(successor).items(), "bit by bit"


def test_dead_rows_of_a_quantised_segment_leave_it(root: IndexRoot) -> None:
    writer = own(root, "sq8")
    for seed in range(2):
        commit(writer, seed)
    merged(writer)
    add(writer, [removal(f"{n:04}") for n in range(0, 80, 2)])
    writer.commit()
    alive = {f"{n:04}" for n in range(1, 80, 2)}
    assert {i for hits in answers(root) for _, i in hits} <= alive
    commit(writer, 5)
    entry = merged(writer)
    assert entry.is_quantised
    assert set(embeddings_of(writer)) == alive | {f"{n:04}" for n in range(120, 160)}


def test_the_format_is_3_as_long_as_a_segment_is_quantised(root: IndexRoot) -> None:
    def majors(writer: ShardWriter) -> int:
        name = history.manifest_name(writer.generation)
        return int(json.loads(writer.store.read(name))["format"][0])

    writer = own(root, "sq8")
    commit(writer, 0)
    assert majors(writer) == 2
    commit(writer, 1)
    merged(writer)
    assert majors(writer) == 3
    successor = own(root, "fp16")
    assert majors(successor) == 3
    commit(successor, 2)
    merged(successor)
    assert majors(successor) == 2


def test_a_release_that_knows_no_quantised_lists_refuses_them_by_name(
    root: IndexRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = own(root, "sq8")
    for seed in range(2):
        commit(writer, seed)
    merged(writer)
    monkeypatch.setattr(manifest_format, "READABLE_MAJORS", (1, 2))
    with pytest.raises(OtherFormat, match="3"):
        history.read_newest(writer.store)


def test_a_flipped_bit_of_the_embeddings_is_found(root: IndexRoot) -> None:
    writer = own(root, "sq8")
    for seed in range(2):
        commit(writer, seed)
    entry = merged(writer)
    assert entry.pack is not None
    [part] = [place for name, place in entry.pack.parts.items() if name.endswith(EMBEDDINGS_SUFFIX)]
    name = entry.stored_name
    data = bytearray(writer.store.local_file(name).read_bytes())
    data[part.end - 1] ^= 1
    writer.store.replace(name, data)
    writer.store.forget_copy(writer.store.local_file(name))
    found = Inspection(writer.store).inspect(writer.generation)
    assert found is not None
    assert isinstance(found.damage, DamagedFile)


@on_a_directory
def test_a_merge_process_takes_a_job_of_either_form(root: IndexRoot) -> None:
    writer, worker = own(root, "fp16"), MergeWorker()
    for seed in range(2):
        commit(writer, seed)
    ids = tuple(entry.segment_id for entry in writer.manifest.segments)
    worker.start(MergeJob(writer.store, writer.generation, ids, "1-merged", 0, vectors="sq8"))
    result = None
    while result is None:
        result = worker.poll()
    worker.kill()
    assert result.entry is not None
    assert result.entry.num_contents == 2 * NUM_ROWS
