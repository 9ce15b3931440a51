"""Selections that keep half of the nodes or more scan few lists, unless they are opposed to the query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import draw_queries, draw_rows, draw_space
from clip_index.storage.mapped_part import map_file
from clip_index.vectors.lists.inverted_lists import write_own_lists
from clip_index.vectors.queries import Queries, Reach
from clip_index.vectors.vector_file import VectorFile, build_node_map

NUM_ROWS, K = 20_000, 10


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return draw_rows(draw_space(6, "clustered"), "image", NUM_ROWS, 6).astype(np.float16)


@pytest.fixture(scope="module")
def file(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> VectorFile:
    return written(rows, tmp_path_factory.mktemp("wide"))


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return draw_queries(draw_space(6, "clustered"), "image", 40, 7)


def written(rows: np.ndarray, directory: Path) -> VectorFile:
    node_map, path = build_node_map(rows.copy(), np.arange(len(rows), dtype=np.uint32)), directory / "v"
    with path.open("wb") as sink:
        effort = write_own_lists(sink, node_map.embeddings)
    return VectorFile(map_file(path), node_map.node_rows, effort)


def nodes_that(file: VectorFile, query: np.ndarray, keep: float) -> np.ndarray:
    """Leave out the nodes nearest to a query: a filter as opposed to it as can be."""
    scores = file.read_nodes().astype(np.float32) @ query
    mask: np.ndarray = scores <= np.quantile(scores, keep)
    return mask


def recall(file: VectorFile, queries: np.ndarray, is_node: np.ndarray) -> float:
    selection = file.vectors.select(is_node)
    near, exact = (file.vectors.search(Queries(queries), K, selection, r)[0] for r in (Reach.NEAR, Reach.ALL))
    return float((near >= exact[:, -1:]).sum() / exact.size)


@pytest.mark.parametrize("keep", [0.5, 0.8, 0.99])
def test_a_wide_filter_that_does_not_depend_on_the_query_scans_few_nodes(
    file: VectorFile, queries: np.ndarray, keep: float
) -> None:
    is_node = np.random.default_rng(1).random(file.num_nodes) < keep
    selection = file.vectors.select(is_node)
    met = [file.vectors.count_near(Queries(query[None]), selection) for query in queries]
    plain = [file.vectors.count_near(Queries(query[None]), None) for query in queries]
    assert np.median(met) <= 2.5 / keep * np.median(plain)
    assert recall(file, queries, is_node) >= 0.99


@pytest.mark.parametrize("keep", [0.5, 0.8, 0.99])
def test_a_wide_filter_that_is_opposed_to_the_query_scans_more_nodes(
    file: VectorFile, queries: np.ndarray, keep: float
) -> None:
    for query in queries[:10]:
        opposed = file.vectors.select(nodes_that(file, query, keep))
        others = file.vectors.select(np.random.default_rng(2).random(file.num_nodes) < keep)
        met = [file.vectors.count_near(Queries(query[None]), one) for one in (opposed, others)]
        assert met[0] > met[1]


@pytest.mark.parametrize("keep", [0.5, 0.8, 0.99])
def test_the_best_of_what_an_opposed_filter_keeps_is_found(
    file: VectorFile, queries: np.ndarray, keep: float
) -> None:
    """Also where the nearest lists are short, so that few of their nodes tell of the filter."""
    found = [recall(file, query[None], nodes_that(file, query, keep)) for query in queries]
    assert min(found) >= 0.8
    assert np.mean(found) >= 0.98


def test_queries_that_are_asked_together_are_answered_as_alone_under_a_wide_filter(
    file: VectorFile, queries: np.ndarray
) -> None:
    selection = file.vectors.select(nodes_that(file, queries[0], 0.7))
    for reach in (Reach.NEAR, Reach.REST):
        together = file.vectors.search(Queries(queries), K, selection, reach)
        for number, query in enumerate(queries):
            alone = file.vectors.search(Queries(query[None]), K, selection, reach)
            assert np.array_equal(together[0][number], alone[0][0])
            assert np.array_equal(together[1][number], alone[1][0])


def test_near_and_rest_share_no_node_under_a_wide_filter(file: VectorFile, queries: np.ndarray) -> None:
    is_node = nodes_that(file, queries[0], 0.6)
    selection, everything = file.vectors.select(is_node), int(is_node.sum())
    for query in queries[:5]:
        near, rest = (
            file.vectors.search(Queries(query[None]), everything, selection, reach)[1][0]
            for reach in (Reach.NEAR, Reach.REST)
        )
        met = np.concatenate([near[near >= 0], rest[rest >= 0]])
        assert np.array_equal(np.sort(met), np.flatnonzero(is_node))


@pytest.mark.parametrize("keep", [0.2, 0.3, 0.45, 0.5, 0.8, 0.9, 0.99])
def test_the_best_of_the_rest_is_found_where_exactly_the_best_is_left_out(
    file: VectorFile, queries: np.ndarray, keep: float
) -> None:
    found = [recall(file, query[None], nodes_that(file, query, keep)) for query in queries[:20]]
    assert np.mean(found) >= 0.98
