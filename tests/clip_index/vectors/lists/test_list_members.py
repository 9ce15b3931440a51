"""Which list a node lies in, and where."""

from __future__ import annotations

import tracemalloc

import faiss
import numpy as np
import pytest

from clip_index.vectors.lists.inverted_lists import InvertedLists, add_listed, build_lists
from clip_index.vectors.vectors import pack_bits

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


def test_a_node_lies_in_one_list_whether_few_nodes_are_asked_for_or_many() -> None:
    rng = np.random.default_rng(1)
    list_of_node = rng.integers(0, NUM_LISTS, 1000)
    index = build_lists(faiss.IndexFlatIP(DIMENSION), NUM_LISTS)
    add_listed(index, rng.standard_normal((1000, DIMENSION)).astype(np.float16), list_of_node)
    members = InvertedLists(index, index.quantizer, list_of_node=list_of_node).members
    nodes = rng.permutation(1000)
    lists, positions = members.find(nodes)
    assert lists.tolist() == list_of_node[nodes].tolist()
    for node, of_node, position in zip(nodes.tolist(), lists.tolist(), positions.tolist(), strict=True):
        found = members.find(np.array([node]))
        assert (found[0].item(), found[1].item()) == (of_node, position)
        assert members.nodes[members.starts[of_node] + position] == node


@pytest.mark.parametrize("is_known", [True, False], ids=["known lists", "lists read from the file"])
def test_selected_nodes_are_counted_alike_in_all_lists_and_in_some(is_known: bool) -> None:
    rng = np.random.default_rng(2)
    list_of_node = rng.choice([0, 1, 3], 1000, p=[0.8, 0.15, 0.05])  # more than a byte counts, and none
    index = build_lists(faiss.IndexFlatIP(DIMENSION), NUM_LISTS)
    add_listed(index, rng.standard_normal((1000, DIMENSION)).astype(np.float16), list_of_node)
    lists = InvertedLists(index, index.quantizer, list_of_node=list_of_node if is_known else None)
    for is_node in (rng.random(1000) < 0.6, np.arange(1000) >= 400, np.ones(1000, np.bool_)):
        expected = np.bincount(list_of_node[is_node], minlength=NUM_LISTS).tolist()
        assert lists.members.count_in_all(is_node.view(np.int8)).tolist() == expected
        some = np.array([3, 0, 2])
        found = lists.members.count_in(some, pack_bits(is_node)).tolist()
        assert found == [expected[number] for number in some.tolist()]
