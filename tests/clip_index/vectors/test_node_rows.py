"""Nodes and rows of a segment, looked up in both directions."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_index.vectors import node_rows
from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.row_addresses import RowAddresses

NUM_NODES, NUM_ROWS = 6, 8
rows_of_a_node = st.sets(st.integers(0, NUM_ROWS - 1), min_size=1, max_size=4)
maps = st.lists(rows_of_a_node, min_size=NUM_NODES, max_size=NUM_NODES).map(
    lambda rows_of: {(node, row) for node, rows in enumerate(rows_of) for row in rows}
)


def open_map(pairs: set[tuple[int, int]]) -> NodeRows:
    return NodeRows(np.array(sorted(pairs), np.uint32).reshape(-1, 2).T, NUM_NODES)


@given(maps, st.lists(st.integers(0, NUM_NODES - 1), unique=True))
def test_the_rows_of_nodes_come_in_the_order_of_the_nodes(
    pairs: set[tuple[int, int]], nodes: list[int]
) -> None:
    positions, rows = open_map(pairs).rows_of(np.array(nodes, np.int64))
    if positions is None:
        positions = np.arange(len(rows))
    expected = [(place, row) for place, node in enumerate(nodes) for n, row in sorted(pairs) if n == node]
    assert list(zip(positions.tolist(), rows.tolist(), strict=True)) == expected


@given(maps, st.integers(0, NUM_ROWS - 1))
def test_the_nodes_of_a_row_are_all_of_its_windows(pairs: set[tuple[int, int]], row: int) -> None:
    assert open_map(pairs).nodes_of(row).tolist() == sorted(n for n, r in pairs if r == row)


@given(maps, st.lists(st.booleans(), min_size=NUM_ROWS, max_size=NUM_ROWS))
def test_a_node_is_eligible_while_one_of_its_rows_is(pairs: set[tuple[int, int]], mask: list[bool]) -> None:
    is_eligible = open_map(pairs).eligible_nodes(np.array(mask))
    assert len(is_eligible) == NUM_NODES
    assert np.flatnonzero(is_eligible).tolist() == sorted({node for node, row in pairs if mask[row]})


@given(maps)
def test_rows_are_distinct_where_none_has_several_nodes(pairs: set[tuple[int, int]]) -> None:
    rows = [row for _, row in pairs]
    assert open_map(pairs).has_distinct_rows == (len(rows) == len(set(rows)))


@given(
    maps,
    st.lists(st.booleans(), min_size=NUM_ROWS, max_size=NUM_ROWS),
    st.lists(st.integers(0, NUM_ROWS - 1), unique=True),
)
def test_nodes_are_left_without_an_eligible_row_when_their_last_one_goes(
    pairs: set[tuple[int, int]], mask: list[bool], gone: list[int]
) -> None:
    before = open_map(pairs).eligible_nodes(np.array(mask))
    is_eligible = np.array(mask)
    is_eligible[gone] = False
    left = open_map(pairs).nodes_left_without(is_eligible, np.array(gone, np.int64))
    assert left.tolist() == sorted(
        {n for n, r in pairs if r in gone} - {n for n, r in pairs if is_eligible[r]}
    )
    before[left] = False
    assert before.tolist() == open_map(pairs).eligible_nodes(is_eligible).tolist()


def test_lookups_in_both_directions_keep_eight_bytes_for_each_node() -> None:
    num_nodes = 100_000
    nodes = np.arange(num_nodes, dtype=np.uint32)
    pairs = np.array([[*nodes, num_nodes - 1], [*nodes, num_nodes]], np.uint32)  # the last node has two rows
    node_rows = NodeRows(pairs, num_nodes)
    tracemalloc.start()
    try:
        node_rows.rows_of(np.arange(10))
        node_rows.rows_of_one(num_nodes - 1)
        node_rows.nodes_of(3)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept_bytes < 8.1 * num_nodes


@given(
    st.sets(st.integers(0, NUM_ROWS - 1)),
    st.sets(st.integers(0, NUM_ROWS + 2)),
    st.sampled_from([2, 8, 1024]),
)
def test_a_table_of_addresses_says_where_the_code_of_each_row_lies(
    known: set[int], wanted: set[int], code_size: int
) -> None:
    rows = np.array(sorted(known), np.uint32)
    addresses = 2**45 + code_size * np.random.default_rng(1).permutation(100)[: len(rows)]
    table = RowAddresses(rows, addresses)
    found, where = table.find(np.array(sorted(wanted), np.int64))
    expected = dict(zip(rows.tolist(), addresses.tolist(), strict=True))
    assert found.tolist() == sorted(known & wanted)
    assert where.tolist() == [expected[row] for row in found.tolist()]


def test_addresses_that_lie_far_apart_fit_into_the_table() -> None:
    rows, addresses = np.arange(3, dtype=np.uint32), np.array([2**20, 2**46, 2**20 + 4])
    assert RowAddresses(rows, addresses).find(np.arange(3))[1].tolist() == addresses.tolist()


def test_a_large_file_has_a_table_of_addresses_and_a_small_one_finds_the_same() -> None:
    pairs = {(node, 2 * node + 1) for node in range(NUM_NODES)}
    rows, found = np.array([0, 1, 3, 4, 11, 12]), []
    for least in (NUM_NODES, NUM_NODES + 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node_rows, "_MIN_TABLED", least)
            found.append(open_map(pairs).addresses_of(rows, lambda nodes: 4096 + 8 * nodes.astype(np.int64)))
    for rows_and_addresses in found:
        assert [of.tolist() for of in rows_and_addresses] == [[1, 3, 11], [4096, 4104, 4136]]
