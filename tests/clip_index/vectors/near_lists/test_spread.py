"""The spread around centroids tells in which lists the best nodes of a query are."""

from __future__ import annotations

import numpy as np
import pytest

from clip_index.vectors.lists.codebook_training import train_codebook
from clip_index.vectors.near_lists.spread import Spread, count_lists, expect_best, measure_spread
from fakes.shards import unit_vectors

DIMENSION, NUM_LISTS, NUM_NODES = 64, 40, 20_000
FLAT = np.geomspace(1, 0.1, DIMENSION)
"""What lies around a centroid differs ten times as much along the first direction as along the last."""


def nodes_around(centroids: np.ndarray, lists: np.ndarray) -> np.ndarray:
    """Return unit vectors, (n, 64), spread around centroids."""
    noise = np.random.default_rng(5).standard_normal((len(lists), DIMENSION)) * FLAT * 0.15
    nodes = centroids[lists] + noise
    return (nodes / np.linalg.norm(nodes, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def centroids() -> np.ndarray:
    return unit_vectors(1, NUM_LISTS, DIMENSION)


@pytest.fixture(scope="module")
def lists() -> np.ndarray:
    return np.random.default_rng(2).integers(NUM_LISTS, size=NUM_NODES)


@pytest.fixture(scope="module")
def nodes(centroids: np.ndarray, lists: np.ndarray) -> np.ndarray:
    return nodes_around(centroids, lists)


@pytest.fixture(scope="module")
def spread(centroids: np.ndarray, lists: np.ndarray, nodes: np.ndarray) -> Spread:
    return Spread(measure_spread(nodes.astype(np.float16), centroids, lists))


def test_the_deviation_of_a_query_is_that_of_its_scores_around_those_of_the_centroids(
    spread: Spread, centroids: np.ndarray, lists: np.ndarray, nodes: np.ndarray
) -> None:
    mean_cosine = np.einsum("nd,nd->n", nodes, centroids[lists]).mean()
    along = np.eye(DIMENSION, dtype=np.float32)[[0, 20, 63]]
    for query in [*unit_vectors(3, 4, DIMENSION), *along]:
        off = nodes @ query / mean_cosine - centroids[lists] @ query
        assert spread.deviation(query) == pytest.approx(np.sqrt(np.square(off).mean()), rel=0.02)
    assert spread.deviation(along[0]) > 3 * spread.deviation(along[2])


def test_a_deviation_along_the_components_of_a_codebook_is_nearly_that_of_the_query(
    spread: Spread, centroids: np.ndarray, lists: np.ndarray, nodes: np.ndarray
) -> None:
    some = slice(None, None, 4)
    codebook = train_codebook(nodes[some], nodes[some] - centroids[lists[some]])
    by_components = Spread(spread.stored, codebook)
    queries = unit_vectors(3, 4, DIMENSION)
    for query, along in zip(queries, codebook.along(queries), strict=True):
        expected = pytest.approx(spread.deviation(query), rel=0.02)
        assert by_components.deviation(query) == by_components.deviation_along(along) == expected


def test_a_spread_is_measured_to_scale_in_any_dimension(centroids: np.ndarray) -> None:
    """Its numbers have room in fp16 although most of them are small."""
    stored = measure_spread(centroids.astype(np.float16), centroids, np.arange(NUM_LISTS))
    assert Spread(stored).deviation(centroids[0]) == pytest.approx(0, abs=1e-3)


def test_a_spread_of_nodes_without_a_common_direction_has_room_in_fp16() -> None:
    opposed = np.zeros((2, 512), np.float16)
    opposed[:, 0] = 1, -1
    stored = measure_spread(opposed, opposed[:1].astype(np.float32), np.zeros(2, np.int64))
    assert stored.max() < np.finfo(np.float16).max
    assert Spread(stored).deviation(opposed[0].astype(np.float32)) == pytest.approx(10, abs=0.1)


def test_where_the_best_are_expected_is_where_they_are(
    spread: Spread, centroids: np.ndarray, lists: np.ndarray, nodes: np.ndarray
) -> None:
    found, expected = [], []
    for query in unit_vectors(4, 200, DIMENSION):
        scores = centroids @ query
        order = np.argsort(-scores)
        gaps = ((scores.max() - scores[order]) / spread.deviation(query)).astype(np.float32)
        best = np.argsort(-(nodes @ query))[:10]
        ranks = np.argsort(order)[lists[best]]
        for num_near in (1, 3, 10):
            found.append((ranks < num_near).mean())
            of_all = expect_best(gaps, NUM_LISTS, NUM_NODES)
            expected.append(of_all[num_near - 1] / of_all[-1])
    by_number = np.array(found).reshape(-1, 3).mean(axis=0), np.array(expected).reshape(-1, 3).mean(axis=0)
    assert by_number[1] == pytest.approx(by_number[0], abs=0.08)
    assert np.corrcoef(found, expected)[0, 1] > 0.85


def test_lists_whose_centroids_are_as_near_hold_as_much() -> None:
    expected = expect_best(np.zeros(8, np.float32), 8, 1_000)
    assert expected.tolist() == list(range(1, 9))
    assert [count_lists(expected, share) for share in (0.9, 0.5, 0.3, 0.01)] == [1, 4, 6, 8]


def test_of_more_nodes_the_best_are_nearer_to_the_nearest_centroids() -> None:
    gaps = np.linspace(0, 3, 50, dtype=np.float32)
    few, many = (count_lists(expect_best(gaps, 50, num), 0.01) for num in (5_000, 5_000_000))
    assert many < few < 50


@pytest.mark.parametrize("num_nodes", [1, 50, 1e9])
def test_any_number_of_nodes_has_best_ones_somewhere(num_nodes: float) -> None:
    expected = expect_best(np.array([0, 1, 200], np.float32), 3, num_nodes)
    assert 1 == expected[0] < expected[1] <= expected[2]
    assert 1 <= count_lists(expected, 0.001) <= 3
