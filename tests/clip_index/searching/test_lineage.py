"""Searchers have one lineage as long as small segments are all that they have beside the one before."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.searching.sources import Sources
from clip_index.vectors.vector_file import write_fastest
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.shards import add, content, create_index, removal, take_over, unit_vectors

LARGE = 4_100
"""Rows of a commit that has lists."""


def commit(writer: ShardWriter, num_rows: int, seed: int) -> None:
    rows = unit_vectors(seed, num_rows)
    add(writer, [content(f"{seed}-{n}", embeddings=row[None]) for n, row in enumerate(rows)])
    writer.commit()


def reloaded(reader: IndexReader) -> Searcher:
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def test_a_lineage_ends_where_a_merged_segment_is_new(tmp_path: Path) -> None:
    writer = take_over(create_index(tmp_path), settings=WriterSettings(write_sealed=write_fastest))
    reader = IndexReader(tmp_path)
    commit(writer, LARGE, 1)
    first = reloaded(reader)
    commit(writer, 5, 2)
    add(writer, [removal("1-0", writer.next_offset)])
    writer.commit()
    second = reloaded(reader)
    assert second is not first
    assert second.lineage is first.lineage
    commit(writer, LARGE, 3)
    assert reloaded(reader).lineage is not first.lineage


def test_a_searcher_that_shares_the_sources_of_the_one_before_answers_as_one_that_does_not(
    tmp_path: Path,
) -> None:
    index = create_index(tmp_path, num_partitions=2)
    settings = WriterSettings(write_sealed=write_fastest)
    writers = [take_over(index, p, settings=settings) for p in range(2)]
    reader = IndexReader(tmp_path)
    queries = np.concatenate([unit_vectors(90, 3), unit_vectors(12, 3)])
    for seed, (partition, num_rows) in enumerate([(0, LARGE), (0, 30), (1, 20), (0, 4), (1, LARGE), (0, 9)]):
        commit(writers[partition], num_rows, 10 + seed)
        shared = reloaded(reader)
        alone = Searcher(shared.shard_views, shared.dimension)
        assert shared.search(queries, k=30, modality="image") == alone.search(queries, k=30, modality="image")
    sources = shared._sources_of("image")
    again = Sources(shared.shard_views, "image", sources)
    assert all(a is b for (_, a), (_, b) in zip(again.by_shard, sources.by_shard, strict=True))
