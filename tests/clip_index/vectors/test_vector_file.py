"""Vector files: exact at any size and under any mask, with identical and missing neighbours."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from benchmarks.data import DIMENSION, draw_queries, draw_rows, draw_space
from clip_index.storage.mapped_part import map_file
from clip_index.vectors import scattered_codes
from clip_index.vectors.flat_vectors import build_flat
from clip_index.vectors.lists.inverted_lists import MIN_NODES, build_lists
from clip_index.vectors.near_lists.effort import UNCALIBRATED
from clip_index.vectors.queries import Queries, Reach
from clip_index.vectors.vector_file import NodeMap, VectorFile, build_node_map, write_fastest

NUM_ROWS = 12_000


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    return draw_rows(draw_space(5), "image", NUM_ROWS, 5)


@pytest.fixture(scope="module")
def file(embeddings: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> VectorFile:
    node_map = build_node_map(embeddings.astype(np.float16), np.arange(NUM_ROWS, dtype=np.uint32))
    return written_file(tmp_path_factory.mktemp("lists") / "image.faiss", node_map)


def written_file(path: Path, node_map: NodeMap) -> VectorFile:
    with path.open("wb") as file:
        written = write_fastest(file, node_map.embeddings)
    return VectorFile(map_file(path), node_map.node_rows, written.effort if written else UNCALIBRATED)


def recall(found: np.ndarray, scores: np.ndarray) -> float:
    """Tie-aware: a node counts if its score reaches the k-th best exact one (within fp16)."""
    kth = np.sort(scores, axis=1)[:, -found.shape[1]]
    reached = np.take_along_axis(scores, found, axis=1) >= kth[:, None] - 1e-3
    return float(reached.mean())


def exact_scores(file: VectorFile, queries: np.ndarray) -> np.ndarray:
    return queries @ file.vectors.embeddings_of(np.arange(file.num_nodes, dtype=np.uint32)).T


def test_a_big_file_has_lists_of_distinct_embeddings(file: VectorFile) -> None:
    assert not file.is_flat
    assert MIN_NODES <= file.num_nodes < NUM_ROWS


@pytest.mark.parametrize("modality", ["text", "image"])
def test_probed_lists_hold_what_a_scan_finds(file: VectorFile, modality: str) -> None:
    queries = draw_queries(draw_space(5), modality, 50, 6)
    _, nodes = file.vectors.search(Queries(queries), 10, None)
    assert recall(nodes, exact_scores(file, queries)) >= 0.99


@pytest.mark.parametrize("share", [1.0, 0.9, 0.5, 0.31, 0.29, 0.1, 0.01, 0.0005])
def test_a_mask_never_costs_recall(file: VectorFile, share: float) -> None:
    queries = draw_queries(draw_space(5), "text", 30, 7)
    is_alive = np.random.default_rng(1).random(file.num_nodes) < share
    k = min(10, int(is_alive.sum()))
    _, nodes = file.vectors.search(Queries(queries), k, file.vectors.select(is_alive))
    assert is_alive[nodes].all()
    scores = np.where(is_alive, exact_scores(file, queries), -2)
    assert recall(nodes, scores) >= 0.99


@pytest.mark.parametrize("is_counted", [False, True])
@pytest.mark.parametrize("num_nodes", [11_000, 900], ids=["lists", "flat"])
def test_a_selection_without_some_nodes_is_the_selection_of_the_rest(
    embeddings: np.ndarray, num_nodes: int, tmp_path: Path, *, is_counted: bool
) -> None:
    node_map = build_node_map(
        embeddings[:num_nodes].astype(np.float16), np.arange(num_nodes, dtype=np.uint32)
    )
    vectors = written_file(tmp_path / "image.faiss", node_map).vectors
    random = np.random.default_rng(3)
    is_node = random.random(vectors.num_nodes) < 0.7
    gone = random.choice(np.flatnonzero(is_node), 200, replace=False)
    before = vectors.select(is_node)
    if is_counted:
        assert before.num_in_list is None or before.num_in_list.sum() == before.num_nodes
    fewer = vectors.deselect(before, gone)
    assert ("num_in_list" in fewer.__dict__) == (is_counted and "num_in_list" in before.__dict__)
    is_still_as_it_was = vectors.select(is_node)
    assert before.bitmap.tolist() == is_still_as_it_was.bitmap.tolist()
    is_node[gone] = False
    expected = vectors.select(is_node)
    assert fewer.bitmap.tolist() == expected.bitmap.tolist()
    assert np.array_equal(fewer.num_in_list, expected.num_in_list)  # None where nothing lies in lists


def test_a_mask_against_the_query_still_gives_the_best_of_the_rest(file: VectorFile) -> None:
    queries = draw_queries(draw_space(5), "image", 10, 8)
    for query in queries:
        scores = exact_scores(file, query[None])
        is_alive = scores[0] < np.median(scores)
        _, nodes = file.vectors.search(Queries(query[None]), 10, file.vectors.select(is_alive))
        assert recall(nodes, np.where(is_alive, scores, -2)) >= 0.99


def test_asking_for_more_than_there_is_gives_all(file: VectorFile) -> None:
    is_alive = np.zeros(file.num_nodes, np.bool_)
    is_alive[[5, 77, 1234]] = True
    _, nodes = file.vectors.search(
        Queries(draw_queries(draw_space(5), "text", 1, 9)),
        10,
        file.vectors.select(is_alive),
    )
    assert set(nodes[0].tolist()) == {5, 77, 1234, -1}


@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("num_selected", [0, 1, 9, 40, 1000])
def test_few_selected_nodes_are_found_as_a_scan_of_all_lists_finds_them(
    file: VectorFile, num_selected: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scattered_codes, "_BLOCK", block)
    random = np.random.default_rng(num_selected)
    is_node = np.zeros(file.num_nodes, np.bool_)
    is_node[random.choice(file.num_nodes, num_selected, replace=False)] = True
    selection = file.vectors.select(is_node)
    queries = Queries(draw_queries(draw_space(5), "text", 6, 10))
    scores, nodes = file.vectors.search(queries, 20, selection)
    expected_scores, expected = file.vectors.search(queries, 20, selection, Reach.ALL)
    is_found = nodes >= 0
    assert is_found.sum(axis=1).tolist() == [min(20, num_selected)] * 6
    assert np.array_equal(nodes, expected)
    assert np.array_equal(scores[is_found], expected_scores[is_found])  # bit by bit: ties stay ties
    assert (file.vectors.search(queries, 20, selection, Reach.REST)[1] == -1).all()
    assert file.vectors.count_near(queries, selection) == num_selected
    assert file.vectors.are_near(queries, 0, np.flatnonzero(is_node), selection).all()


@pytest.mark.parametrize("num_selected", [300, 5000])
def test_a_filtered_query_among_others_is_answered_as_it_is_alone(
    file: VectorFile, num_selected: int
) -> None:
    is_node = np.zeros(file.num_nodes, np.bool_)
    is_node[:num_selected] = True
    selection = file.vectors.select(is_node)
    queries = draw_queries(draw_space(5), "text", 5, 12)
    together = file.vectors.search(Queries(queries), 10, selection)
    for number, query in enumerate(queries):
        alone = file.vectors.search(Queries(query[None]), 10, selection)
        assert [part[0].tolist() for part in alone] == [part[number].tolist() for part in together]


def test_a_selection_that_lost_most_of_its_nodes_finds_the_ones_that_are_left(file: VectorFile) -> None:
    every = np.ones(file.num_nodes, np.bool_)
    selection = file.vectors.deselect(file.vectors.select(every), np.arange(12, file.num_nodes))
    _, nodes = file.vectors.search(Queries(draw_queries(draw_space(5), "text", 1, 9)), 20, selection)
    assert sorted(nodes[0].tolist()) == [-1] * 8 + list(range(12))


def test_embeddings_are_read_in_the_order_that_is_asked_for(
    file: VectorFile,
) -> None:
    nodes = np.random.default_rng(4).choice(file.num_nodes, 50)
    assert np.array_equal(file.vectors.embeddings_of(nodes), file.read_nodes()[nodes].astype(np.float32))
    assert file.vectors.embeddings_of(nodes[:0]).shape == (0, DIMENSION)


@pytest.mark.parametrize("num_nodes", [11_000, 900], ids=["lists", "flat"])
def test_a_merge_reads_the_kept_pairs_of_a_file_in_their_order(num_nodes: int, tmp_path: Path) -> None:
    """Rows with several nodes and nodes with several rows, of which some are dead."""
    random = np.random.default_rng(4)
    distinct = draw_rows(draw_space(5), "image", num_nodes, 5).astype(np.float16)
    drawn = distinct[np.concatenate([np.arange(num_nodes), random.integers(0, num_nodes, num_nodes // 4)])]
    rows = np.arange(len(drawn), dtype=np.uint32) // 2
    file = written_file(tmp_path / "image.faiss", build_node_map(drawn.copy(), rows))
    is_alive = random.random(len(drawn)) < 0.6
    is_kept = is_alive[file.node_rows.rows]
    out = np.empty((np.count_nonzero(is_kept), drawn.shape[1]), np.float16)
    file.read_pairs(is_kept, out)
    expected = file.read_nodes()[file.node_rows.nodes][is_kept]
    assert np.array_equal(out, expected)
    by_row = sorted((int(row), vector.tobytes()) for row, vector in zip(rows, drawn, strict=True))
    pairs = zip(file.node_rows.rows, file.read_nodes()[file.node_rows.nodes], strict=True)
    assert sorted((int(row), vector.tobytes()) for row, vector in pairs) == by_row


def test_a_node_map_keeps_every_row_of_identical_embeddings() -> None:
    rows = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1]], np.float16)
    node_map = build_node_map(rows, np.array([10, 11, 12, 13, 10], np.uint32))
    assert node_map.embeddings.tolist() == [[1, 0], [0, 1], [1, 1]]
    assert node_map.node_rows.tolist() == [[0, 0, 1, 1, 2], [10, 12, 11, 13, 10]]


def test_distinct_embeddings_are_a_node_each_in_their_order() -> None:
    rows = np.array([[0, 1], [1, 0], [1, 1]], np.float16)
    node_map = build_node_map(rows, np.array([7, 9, 8], np.uint32))
    assert node_map.embeddings.tolist() == rows.tolist()
    assert node_map.node_rows.tolist() == [[0, 1, 2], [7, 9, 8]]
    assert node_map.node_rows.dtype == np.uint32


@pytest.mark.parametrize("dimension", [64, 512, 4096])
def test_codes_are_read_wherever_a_processor_may_map_them(dimension: int) -> None:
    """ARM gives a process addresses of 48 bits, twice as many as x86-64, and maps files at their end."""
    index = build_lists(build_flat(dimension), 1)
    memory = scattered_codes.ScatteredCodes(index)._memory._items
    assert memory.itemsize == 2 * dimension
    assert memory.strides == (1,)
    assert memory.__array_interface__["data"][0] + len(memory) == 2**48


def test_searches_at_once_do_not_share_the_room_for_copies(file: VectorFile) -> None:
    queries = [Queries(query[None]) for query in draw_queries(draw_space(5), "text", 40, 13)]
    is_node = np.zeros(file.num_nodes, np.bool_)
    is_node[::17] = True
    nodes = np.flatnonzero(is_node).astype(np.int32)
    assert file.vectors.codes is not None
    codes, addresses = file.vectors.codes, file.vectors.addresses_of(nodes)
    alone = [codes.search(query, 5, addresses) for query in queries]
    with ThreadPoolExecutor(8) as threads:
        at_once = list(threads.map(lambda query: codes.search(query, 5, addresses), queries))
    for (scores, numbers), (expected_scores, expected) in zip(at_once, alone, strict=True):
        assert np.array_equal(scores, expected_scores)
        assert np.array_equal(numbers, expected)
