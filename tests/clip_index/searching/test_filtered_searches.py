"""Searches with a filter, through lists and a tail, against a scan of the rows that pass it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import DIMENSION, draw_queries, draw_rows, draw_space
from clip_index.content import Delta, RemovedContent
from clip_index.masks.row_masks import RowMasks
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import AnyOf, Condition, Exists, InRange, RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.vector_file import write_fastest
from clip_index.writing.shard_writer import WriterSettings
from fakes.shards import content, create_index, fingerprint, take_over


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return draw_rows(draw_space(5), "image", 14_000, 5)


@pytest.fixture(scope="module")
def searcher(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Inverted lists and a tail in such lists, with dead rows; `metadata.n` is the row's number."""
    root: Path = tmp_path_factory.mktemp("filtered")
    index = create_index(root, fingerprint=fingerprint(dimension=DIMENSION))
    writer = take_over(index, settings=WriterSettings(write_sealed=write_fastest))
    for first, last in ((0, 12_000), (12_000, 13_900), (13_900, 14_000)):
        start = writer.next_offset
        changes = [
            content(str(n), start + n - first, embeddings=rows[n][None], metadata={"n": float(n % 1000)})
            for n in range(first, last)
        ]
        writer.add(Delta(start, start + len(changes), changes))
        writer.commit()
    start = writer.next_offset
    dead = [RemovedContent(str(n), start + place) for place, n in enumerate(range(0, 14_000, 7))]
    writer.add(Delta(start, start + len(dead), dead))
    writer.commit()
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    [shard] = reader.searcher.shard_views
    assert shard.segments[0].segment.vector_files["image"].lists is not None
    assert isinstance(shard.tails["image"][0].joined.vectors, InvertedLists)
    return reader.searcher


@pytest.mark.parametrize("num_kept", [1000, 500, 310, 290, 100, 10, 1])
def test_filtered_searches_find_what_a_scan_of_the_eligible_rows_finds(
    searcher: Searcher, rows: np.ndarray, num_kept: int
) -> None:
    queries = draw_queries(draw_space(5), "text", 20, 8)
    row_filter = RowFilter(must=(InRange("metadata.n", lt=float(num_kept)),))
    number = np.arange(len(rows))
    is_eligible = (number % 1000 < num_kept) & (number % 7 != 0)
    answers = searcher.search(queries, k=10, modality="image", row_filter=row_filter)
    num_reached = 0
    for query, hits in zip(queries, answers, strict=True):
        scores = np.where(is_eligible, rows @ query, -2)
        least = np.sort(scores)[-10]
        found = [int(hit.content_id) for hit in hits]
        assert len(set(found)) == min(10, int(is_eligible.sum()))
        assert is_eligible[found].all()
        num_reached += sum(scores[n] >= least - 1e-3 for n in found)
    assert num_reached / sum(map(len, answers)) >= 0.99


def test_without_a_filter_the_lists_and_the_tail_beside_them_find_what_a_scan_finds(
    searcher: Searcher, rows: np.ndarray
) -> None:
    queries = draw_queries(draw_space(5), "text", 20, 9)
    is_alive = np.arange(len(rows)) % 7 != 0
    answers = searcher.search(queries, k=10, modality="image")
    num_reached = 0
    for query, hits in zip(queries, answers, strict=True):
        scores = np.where(is_alive, rows @ query, -2)
        found = [int(hit.content_id) for hit in hits]
        assert [hit.score for hit in hits] == pytest.approx(scores[found], abs=1e-3)
        num_reached += sum(scores[n] >= np.sort(scores)[-10] - 1e-3 for n in set(found))
    assert num_reached / 200 >= 0.99


NARROW = [
    InRange("metadata.n", lt=30.0),
    InRange("metadata.n", gte=200.0, lt=210.0),
    AnyOf("metadata.n", (7.0, 8.0, 900.0)),
    InRange("metadata.n", gt=2000.0),
]


@pytest.mark.parametrize("condition", NARROW, ids=str)
def test_searches_by_an_order_answer_what_searches_by_a_mask_do(
    searcher: Searcher, condition: Condition, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = draw_queries(draw_space(5), "text", 4, 8)
    [shard] = searcher.shard_views
    assert shard.segments[0].segment.few_rows(RowFilter(must=(condition,))) is not None
    by_order = searcher.search(queries, k=30, modality="image", row_filter=RowFilter(must=(condition,)))
    monkeypatch.setattr(RowMasks, "find_few", lambda *_: None)
    other_key = RowFilter(must=(condition, Exists("source")))  # so that no cache answers
    by_mask = searcher.search(queries, k=30, modality="image", row_filter=other_key)
    assert [[(h.content_id, h.score) for h in hits] for hits in by_order] == [
        [(h.content_id, h.score) for h in hits] for hits in by_mask
    ]


WIDE = [
    RowFilter((InRange("metadata.n", lt=600.0),)),
    RowFilter((InRange("metadata.n", gte=100.0, lt=900.0), InRange("occurred_at", lt=1e15))),
    RowFilter((), (InRange("metadata.n", lt=300.0), InRange("metadata.n", gt=500.0))),
    RowFilter((), (), (InRange("metadata.n", gt=400.0),)),
]


@pytest.mark.parametrize("row_filter", WIDE, ids=["one", "two", "either", "not"])
def test_searches_by_pairs_answer_what_searches_by_a_mask_of_rows_do(
    searcher: Searcher, row_filter: RowFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = draw_queries(draw_space(5), "text", 4, 8)
    [shard] = searcher.shard_views
    assert shard.segments[0].segment.pair_mask("image", row_filter) is not None
    by_pairs = searcher.search(queries, k=30, modality="image", row_filter=row_filter)
    other_key = replace(row_filter, must=(*row_filter.must, Exists("source")))  # so that no cache answers
    by_mask = searcher.search(queries, k=30, modality="image", row_filter=other_key)
    assert [[(h.content_id, h.score) for h in hits] for hits in by_pairs] == [
        [(h.content_id, h.score) for h in hits] for hits in by_mask
    ]


def test_a_filter_that_nothing_passes_gives_nothing(searcher: Searcher) -> None:
    queries = draw_queries(draw_space(5), "text", 2, 8)
    nothing = RowFilter(must=(AnyOf("source", ("elsewhere",)),))
    assert searcher.search(queries, k=3, modality="image", row_filter=nothing) == [[], []]
