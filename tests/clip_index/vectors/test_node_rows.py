"""Nodes and rows of a segment, looked up in both directions."""

from __future__ import annotations

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clip_index.vectors.node_rows import NodeRows

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
