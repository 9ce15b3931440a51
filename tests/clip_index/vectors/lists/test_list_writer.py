"""Lists are written as FAISS writes them, without holding their codes."""

from __future__ import annotations

import io

import faiss
import numpy as np
import pytest

from clip_index.vectors.flat_vectors import build_flat
from clip_index.vectors.lists.inverted_lists import add_listed, build_lists
from clip_index.vectors.lists.list_writer import write_listed
from fakes.shards import unit_vectors

NUM_LISTS, DIMENSION = 10, 16
EMBEDDINGS = unit_vectors(1, 50, DIMENSION).astype(np.float16)


def build(*, owns_centroids: bool) -> faiss.IndexIVF:
    centroids = build_flat(DIMENSION)
    if owns_centroids:
        centroids.add(unit_vectors(2, NUM_LISTS, DIMENSION))
    return build_lists(centroids, NUM_LISTS)


@pytest.mark.parametrize("owns_centroids", [True, False], ids=["own centroids", "shared centroids"])
@pytest.mark.parametrize(
    "num_filled",
    [pytest.param(10, id="all lists"), pytest.param(5, id="half of them"), pytest.param(1, id="one list")],
)
def test_the_file_has_the_bytes_that_faiss_would_write(num_filled: int, *, owns_centroids: bool) -> None:
    lists = np.random.default_rng(3).permutation(np.arange(50) % num_filled)
    held, written = build(owns_centroids=owns_centroids), io.BytesIO()
    add_listed(held, EMBEDDINGS, lists)
    write_listed(
        written, build(owns_centroids=owns_centroids), lists, lambda nodes: EMBEDDINGS[nodes].view(np.uint8)
    )
    assert written.getvalue() == faiss.serialize_index(held).tobytes()
