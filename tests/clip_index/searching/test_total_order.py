"""One order of answers, by score and then content id, wherever a ranking is cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clip_index.content import Delta
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import InRange, RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.segments.segment import Segment
from clip_index.vectors.vector_file import write_fastest
from clip_index.writing.shard_writer import WriterSettings
from fakes.shards import DIMENSION, content, create_index, fingerprint, take_over, unit_vectors
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import find_rankings
from query_api.search.ranking.ranking_requests import MAX_DEPTH, RankingRequest

AXES = np.eye(DIMENSION, dtype=np.float32)
ALIKE = np.full((1, DIMENSION), 1 / np.sqrt(DIMENSION), np.float32)
"""A query that each of the axes answers with the same score."""


def write(root: Path, num_partitions: int, commits: list[list[tuple[str, np.ndarray]]]) -> Searcher:
    """Commit rows of id and embeddings (windows, dimension), each commit to the next partition in turn."""
    dimension = commits[0][0][1].shape[1]
    index = create_index(root, num_partitions=num_partitions, fingerprint=fingerprint(dimension=dimension))
    writers = [
        take_over(index, partition, settings=WriterSettings(write_sealed=write_fastest))
        for partition in range(num_partitions)
    ]
    for number, rows in enumerate(commits):
        writer = writers[number % num_partitions]
        first = writer.next_offset
        changes = [
            content(name, first + n, embeddings=e, modality="text", metadata={"n": float(n % 2)})
            for n, (name, e) in enumerate(rows)
        ]
        writer.add(Delta(first, first + len(rows), changes))
        writer.commit()
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def ranking(searcher: Searcher, query: np.ndarray, k: int, **ask: Any) -> list[tuple[float, str]]:
    [hits] = searcher.search(query, k=k, modality="text", **ask)
    return [(-hit.score, hit.content_id) for hit in hits]


def walk(
    searcher: Searcher,
    query: np.ndarray,
    page: int,
    row_filter: RowFilter | None,
    *,
    is_collapsing: bool = False,
) -> list[str]:
    ask = RankingRequest(
        QueryEmbedding(query[0], frozenset(), None),
        "text",
        page,
        row_filter=row_filter,
        is_collapsing=is_collapsing,
        depth=MAX_DEPTH,
    )
    found: list[str] = []
    while True:
        [selected] = find_rankings(searcher, [ask])
        found += [hit.content_id for hit in selected.hits]
        if selected.end is None:
            return found
        ask = replace(ask, after=selected.end)


@st.composite
def logs(draw: st.DrawFn) -> list[list[tuple[str, np.ndarray]]]:
    """Commits of contents that have few embeddings between them, ids arriving in any order."""
    num_rows = draw(st.integers(2, 60))
    ids = draw(st.permutations([f"id-{n}" for n in range(num_rows)]))
    num_kinds = draw(st.integers(1, 4))
    kinds = draw(st.lists(st.integers(0, num_kinds - 1), min_size=num_rows, max_size=num_rows))
    windows = draw(st.lists(st.integers(1, 2), min_size=num_rows, max_size=num_rows))
    rows = [
        (name, AXES[[kind, (kind + 1) % num_kinds][:num_windows]])
        for name, kind, num_windows in zip(ids, kinds, windows, strict=True)
    ]
    cuts = sorted(draw(st.sets(st.integers(1, num_rows - 1), max_size=5)))
    return [rows[a:b] for a, b in zip([0, *cuts], [*cuts, num_rows], strict=True)]


@settings(max_examples=120)
@given(
    commits=logs(),
    num_partitions=st.integers(1, 2),
    row_filter=st.sampled_from([None, RowFilter(must=(InRange("metadata.n", lt=1.0),))]),
    query=st.sampled_from([ALIKE, AXES[:1]]),
)
def test_every_cut_is_the_head_of_the_whole_ranking(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[list[tuple[str, np.ndarray]]],
    num_partitions: int,
    row_filter: RowFilter | None,
    query: np.ndarray,
) -> None:
    searcher = write(tmp_path_factory.mktemp("order"), num_partitions, commits)
    num_rows = sum(len(rows) if row_filter is None else -(-len(rows) // 2) for rows in commits)
    whole = ranking(searcher, query, 1000, row_filter=row_filter)
    assert whole == sorted(whole)
    assert len({content_id for _, content_id in whole}) == num_rows
    for k in (1, 2, 3, 10, num_rows):
        assert ranking(searcher, query, k, row_filter=row_filter) == whole[:k]
    for page in (1, 3, 10):
        assert walk(searcher, query, page, row_filter) == [content_id for _, content_id in whole]


@settings(max_examples=60)
@given(commits=logs(), num_partitions=st.integers(1, 2), page=st.sampled_from([1, 3, 100]))
def test_collapsed_pages_show_the_first_of_the_contents_with_the_same_embeddings_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    commits: list[list[tuple[str, np.ndarray]]],
    num_partitions: int,
    page: int,
) -> None:
    searcher = write(tmp_path_factory.mktemp("collapsed"), num_partitions, commits)
    embeddings = {name: sorted(e.tolist()) for rows in commits for name, e in rows}
    expected: list[str] = []
    for _, name in ranking(searcher, ALIKE, 1000):
        if all(embeddings[name] != embeddings[other] for other in expected):
            expected.append(name)
    assert walk(searcher, ALIKE, page, None, is_collapsing=True) == expected


def test_ten_thousand_identical_texts_cost_a_search_no_more_ids_than_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.random.default_rng(4).permutation(10_000).tolist()
    searcher = write(tmp_path, 2, [[(f"{n:05}", AXES[:1]) for n in ids[i::2]] for i in range(2)])
    num_read = 0
    read = Segment.content_id

    def count(segment: Segment, row: int) -> str:
        nonlocal num_read
        num_read += 1
        return read(segment, row)

    monkeypatch.setattr(Segment, "content_id", count)
    found = ranking(searcher, AXES[:1], 10)
    assert [content_id for _, content_id in found] == [f"{n:05}" for n in range(10)]
    assert num_read <= 2 * 10


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Texts in inverted lists and a tail: 300 of one embedding in random order, some of several windows."""
    random = np.random.default_rng(8)
    vectors = unit_vectors(8, 7_000, 32)
    names = random.permutation(7_000)
    rows: list[tuple[str, np.ndarray]] = []
    for number, name in enumerate(names.tolist()):
        embeddings = vectors[:1] if number % 20 == 0 else vectors[number : number + 1 + number % 2]
        rows.append((f"{name:05}", embeddings))
    return write(tmp_path_factory.mktemp("listed"), 1, [rows[:6_000], rows[6_000:6_400], rows[6_400:]])


@pytest.mark.parametrize("seed", [0, 21, 22])
def test_more_hits_begin_with_fewer_hits_in_lists_too(listed: Searcher, seed: int) -> None:
    query = unit_vectors(8 if seed == 0 else seed, 1, 32)
    hundred = ranking(listed, query, 100)
    assert hundred == sorted(hundred)
    for k in (1, 10, 50):
        assert ranking(listed, query, k) == hundred[:k]


@pytest.mark.parametrize("seed", [0, 21])
def test_pages_begin_as_the_plain_search_and_end_with_every_content(listed: Searcher, seed: int) -> None:
    query = unit_vectors(8 if seed == 0 else seed, 1, 32)
    found = walk(listed, query, 250, None)
    assert found[:10] == [content_id for _, content_id in ranking(listed, query, 10)]
    assert sorted(found) == [f"{n:05}" for n in range(7_000)]


def test_a_text_scores_by_its_best_window_wherever_that_lies(listed: Searcher) -> None:
    for seed in (31, 32, 33):
        query = unit_vectors(seed, 1, 32)
        [hits] = listed.search(query, k=50, modality="text")
        for hit in hits:
            best = float((listed.embeddings(hit.location) @ query[0]).max())
            assert hit.score == pytest.approx(best, abs=1e-5)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """400 texts of 20 windows each, in lists: far more nodes than texts."""
    vectors = unit_vectors(5, 8_000, 32).reshape(400, 20, 32)
    rows = [(f"{number:03}", embeddings) for number, embeddings in enumerate(vectors)]
    return write(tmp_path_factory.mktemp("windowed"), 1, [rows])


@pytest.mark.parametrize("k", [10, 50, 100])
def test_the_first_page_is_the_plain_answer_where_texts_have_many_windows(windowed: Searcher, k: int) -> None:
    for seed in range(40, 50):
        query = unit_vectors(seed, 1, 32)
        page = ranking(windowed, query, k, depth=MAX_DEPTH)
        assert page == sorted(page)
        assert page[:k] == ranking(windowed, query, k)


def test_pages_with_a_least_score_show_every_content_that_reaches_it(windowed: Searcher) -> None:
    vectors = unit_vectors(5, 8_000, 32).reshape(400, 20, 32).astype(np.float16).astype(np.float32)
    for seed in range(40, 50):
        query = unit_vectors(seed, 1, 32)
        best = (vectors @ query[0]).max(axis=1)
        least = float(np.sort(best)[-60]) - 1e-4
        ask = RankingRequest(
            QueryEmbedding(query[0], frozenset(), None), "text", 7, min_score=least, depth=MAX_DEPTH
        )
        found: list[str] = []
        while True:
            [selected] = find_rankings(windowed, [ask])
            found += [hit.content_id for hit in selected.hits]
            if selected.end is None:
                break
            ask = replace(ask, after=selected.end)
        assert sorted(found) == [f"{n:03}" for n in np.flatnonzero(best >= least)]


def test_an_answer_does_not_depend_on_the_other_queries_of_its_call(windowed: Searcher) -> None:
    queries = unit_vectors(60, 12, 32)
    alone = [ranking(windowed, query[None], 50) for query in queries]
    together = windowed.search(queries, k=50, modality="text")
    assert [[(-hit.score, hit.content_id) for hit in hits] for hits in together] == alone


def test_no_queries_and_no_hits_wanted_are_answered(windowed: Searcher) -> None:
    assert windowed.search(np.empty((0, 32), np.float32), k=3, modality="text") == []
    assert windowed.search(unit_vectors(1, 2, 32), k=0, modality="text") == [[], []]


def test_scores_lie_between_minus_one_and_one(tmp_path: Path) -> None:
    rows = [(f"{n}", unit_vectors(n, 1, 512)) for n in range(200)]
    searcher = write(tmp_path, 1, [rows])
    queries = np.concatenate([[embedding[0], -embedding[0]] for _, embedding in rows]).reshape(400, 512)
    scores = [hit.score for hits in searcher.search(queries, k=200, modality="text") for hit in hits]
    assert min(scores) >= -1
    assert max(scores) <= 1
