"""A graph finds the nearest of many centroids, or one that is nearly as near."""

from __future__ import annotations

import numpy as np
import pytest

from clip_index.vectors.centroid_graph import build_finder
from clip_index.vectors.centroid_set import CentroidSet, nearest_lists
from fakes.shards import unit_vectors

NUM_CENTROIDS, DIMENSION = 1_500, 64


@pytest.fixture(scope="module")
def centroids() -> CentroidSet:
    return CentroidSet.of(unit_vectors(1, NUM_CENTROIDS, DIMENSION))


@pytest.fixture(scope="module")
def embeddings(centroids: CentroidSet) -> np.ndarray:
    """Return embeddings that lie around centroids, each at a cosine of about 0.7."""
    around = centroids.centroids[np.arange(2_000) % NUM_CENTROIDS]
    mixed = around + unit_vectors(2, 2_000, DIMENSION)
    unit: np.ndarray = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float16)
    return unit


def test_nearly_every_embedding_gets_its_nearest_centroid(
    centroids: CentroidSet, embeddings: np.ndarray
) -> None:
    assert build_finder(centroids.index) is not centroids.index
    found, nearest = centroids.nearest(embeddings), centroids.assign(embeddings)
    assert (found == nearest.lists).mean() > 0.99
    cosines = np.einsum("nd,nd->n", embeddings.astype(np.float32), centroids.centroids[found])
    assert (nearest.cosines - cosines).mean() < 1e-3


def test_what_is_found_depends_neither_on_the_other_embeddings_nor_on_the_process(
    centroids: CentroidSet, embeddings: np.ndarray
) -> None:
    together = centroids.nearest(embeddings[:100])
    alone = [int(centroids.nearest(embeddings[n : n + 1])[0]) for n in range(100)]
    again = nearest_lists(build_finder(centroids.index), embeddings[:100])
    assert together.tolist() == alone == again.tolist()


def test_of_few_centroids_the_nearest_one_is_found_by_a_scan() -> None:
    few = CentroidSet.of(unit_vectors(1, 999, DIMENSION))
    assert build_finder(few.index) is few.index
    embeddings = unit_vectors(2, 200, DIMENSION).astype(np.float16)
    assert few.nearest(embeddings).tolist() == few.assign(embeddings).lists.tolist()


def test_no_embeddings_have_no_lists(centroids: CentroidSet) -> None:
    assert centroids.nearest(np.empty((0, DIMENSION), np.float16)).shape == (0,)
