"""Pages through inverted lists: however deep, they are one ranking, cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clip_index.content import Delta
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import InRange, RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.vectors.vector_file import write_fastest
from clip_index.writing.shard_writer import WriterSettings
from fakes.shards import content, create_index, fingerprint, take_over, unit_vectors
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import find_rankings
from query_api.search.ranking.ranking_requests import MAX_DEPTH, RankingRequest

DIMENSION, NUM_ROWS, PAGE, NUM_PAGES = 32, 24_000, 20, 20


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Embeddings without clusters, whose nearest lie in many lists; and a tail."""
    root: Path = tmp_path_factory.mktemp("deep")
    index = create_index(root, fingerprint=fingerprint(dimension=DIMENSION))
    writer = take_over(index, settings=WriterSettings(write_sealed=write_fastest))
    rows = unit_vectors(1, NUM_ROWS, DIMENSION)
    for first, last in ((0, 20_000), (20_000, 23_000), (23_000, NUM_ROWS)):
        changes = [
            content(str(n), n, embeddings=rows[n][None], metadata={"n": float(n % 10)})
            for n in range(first, last)
        ]
        writer.add(Delta(first, last, changes))
        writer.commit()
    reader = IndexReader(root)
    reader.reload()
    assert reader.searcher is not None
    return reader.searcher


def request_for(seed: int, row_filter: RowFilter | None, k: int) -> RankingRequest:
    query = QueryEmbedding(unit_vectors(seed, 1, DIMENSION)[0], frozenset(), None)
    return RankingRequest(query, "image", k, row_filter=row_filter, depth=MAX_DEPTH)


@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("share", [None, 5.0, 1.0], ids=["all", "half", "a tenth"])
def test_pages_are_one_ranking_cut(searcher: Searcher, seed: int, share: float | None) -> None:
    row_filter = None if share is None else RowFilter(must=(InRange("metadata.n", lt=share),))
    request, found = request_for(seed, row_filter, PAGE), []
    for _ in range(NUM_PAGES):
        [page] = find_rankings(searcher, [request])
        found += [hit.content_id for hit in page.hits]
        request = replace(request, after=page.end)
    [whole] = find_rankings(searcher, [request_for(seed, row_filter, PAGE * NUM_PAGES)])
    assert found == [hit.content_id for hit in whole.hits]


def test_a_deep_ranking_finds_what_a_scan_finds(searcher: Searcher) -> None:
    """The first page of a ranking that may go deep looks at more than a search without pages."""
    queries = unit_vectors(7, 20, DIMENSION)
    rows = unit_vectors(1, NUM_ROWS, DIMENSION)
    answers = searcher.search(queries, k=10, modality="image", depth=MAX_DEPTH)
    found = np.array([[int(hit.content_id) for hit in hits] for hits in answers])
    exact = np.argsort(-(queries @ rows.T), axis=1)[:, :10]
    shared = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    assert sum(shared) / 200 >= 0.95
