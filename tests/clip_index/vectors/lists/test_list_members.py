"""Which list a node lies in, and where."""

from __future__ import annotations

import tracemalloc

import faiss
import numpy as np

from clip_index.vectors.lists.inverted_lists import InvertedLists, add_listed, build_lists

NUM_NODES, DIMENSION, NUM_LISTS = 50_000, 8, 4


def test_reading_embeddings_keeps_four_bytes_for_each_node() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((NUM_NODES, DIMENSION)).astype(np.float16)
    centroids = faiss.IndexFlatIP(DIMENSION)
    centroids.add(embeddings[:NUM_LISTS].astype(np.float32))
    index = build_lists(centroids)
    add_listed(index, embeddings, rng.integers(0, NUM_LISTS, NUM_NODES))
    lists = InvertedLists(index, centroids)
    asked = rng.permutation(NUM_NODES)[:100]
    tracemalloc.start()
    try:
        found = lists.embeddings_of(asked)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.array_equal(found, embeddings[asked])
    assert kept_bytes < 4.5 * NUM_NODES
