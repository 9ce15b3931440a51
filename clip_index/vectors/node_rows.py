"""The map between the nodes of a vector file and the rows of its segment.

On disk it is `nodes.npy`, (2, n) uint32: pairs of node and row, ascending by node. A row
with several windows has several nodes, a node of identical contents several rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.row_addresses import RowAddresses

_MIN_TABLED = 4096
"""Of fewer nodes, which are the tail's and change with each commit, addresses are found step by step."""

ItemT = TypeVar("ItemT", bound=np.generic)


class NodeRows:
    """Immutable and thread-safe. A search looks up by node; reading a single content looks up by row.

    Beside the file each direction takes 4 bytes a node, once somebody has asked for it: `marked_rows`, and
    `_pair_of_row`. For texts of several windows the second one takes 8 bytes for each pair. Masks take 8
    bytes a node more, and the addresses of codes 8 bytes a row.
    """

    def __init__(self, pairs: NDArray[np.uint32], num_nodes: int) -> None:
        pairs = pairs.view(np.ndarray)  # a plain array, because slicing a memmap costs microseconds
        self.nodes: NDArray[np.uint32] = pairs[0]
        self.rows: NDArray[np.uint32] = pairs[1]
        self._num_nodes = num_nodes
        self._is_one_to_one = len(self.nodes) == num_nodes
        self._addresses: RowAddresses | None = None

    @cached_property
    def has_distinct_rows(self) -> bool:
        """Whether every row has one node only, as images have."""
        if not len(self.rows):
            return True
        is_seen = np.zeros(int(self.rows.max()) + 1, np.bool_)
        is_seen[self.rows] = True
        return int(np.count_nonzero(is_seen)) == len(self.rows)

    @cached_property
    def nodes_per_row(self) -> float:
        """How many nodes a row has in the mean, at least 1: texts have one for each window."""
        if not len(self.rows):
            return 1.0
        num_rows = np.count_nonzero(np.bincount(self.rows))
        return max(1.0, len(self.rows) / num_rows)

    def rows_of(self, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """Return pairs in the order of `nodes`: a position in `nodes`, and a row of the node there.

        The positions are None if each node has one row.
        """
        rows = self.marked_rows[nodes].astype(np.int64)
        if self._is_one_to_one or rows.min(initial=0) >= 0:
            return None, rows
        positions, pairs = _ranges(*self._pairs_of_nodes(nodes))
        return positions, self.rows[pairs].astype(np.int64)

    def rows_of_one(self, node: int) -> NDArray[np.int64]:
        """Return all rows of one node."""
        wanted = np.uint32(node)
        first = node + self._further_nodes.searchsorted(wanted)
        end = node + 1 + self._further_nodes.searchsorted(wanted, side="right")
        return self.rows[first:end].astype(np.int64)

    def _pairs_of_nodes(self, nodes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the first pair of each node, and the end of its pairs, both (n,).

        Every node has a pair, so the pairs before a node's first one are as many as the nodes before it, and
        their further pairs.
        """
        wanted = nodes.astype(np.uint32)  # of another type, all nodes would be converted to it
        num_before = np.searchsorted(self._further_nodes, wanted)
        num_until = np.searchsorted(self._further_nodes, wanted, side="right")
        return nodes + num_before, nodes + 1 + num_until

    def nodes_of(self, row: int) -> NDArray[np.int64]:
        """Return the nodes of one row, ascending."""
        return self._nodes_of_all(np.array([row]))

    def windows_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all nodes of those rows that have several, and the position of each one's row in `rows`."""
        positions, nodes = self._pairs_of(rows)
        has_several = np.bincount(positions, minlength=len(rows)) > 1
        is_kept = has_several[positions]
        return positions[is_kept], nodes[is_kept]

    def _nodes_of_all(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the nodes of each row after those of the one before."""
        return self._pairs_of(rows)[1]

    def _pairs_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the nodes of each row after those of the one before, and which position each belongs to."""
        if self.has_distinct_rows:
            return self._only_pairs_of(rows)
        by_row, ordered = self._by_row
        wanted = rows.astype(np.uint32)  # of another type, all rows would be converted to it
        positions, pairs = _ranges(
            np.searchsorted(ordered, wanted), np.searchsorted(ordered, wanted, side="right")
        )
        return positions, self.nodes[by_row[pairs]].astype(np.int64)

    def _only_pairs_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return what `_pairs_of` does, where no row has several nodes."""
        positions = np.flatnonzero(rows < len(self._pair_of_row))
        nodes = self._nodes_at(rows[positions])
        has_node = nodes >= 0
        return positions[has_node], nodes[has_node].astype(np.int64)

    def nodes_left_without(
        self, is_eligible_row: NDArray[np.bool_], rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the nodes of the given rows that have no eligible row left, ascending."""
        nodes = np.unique(self._nodes_of_all(rows))
        positions, rows_of_nodes = self.rows_of(nodes)
        is_eligible = is_eligible_row[rows_of_nodes]
        if positions is None:
            return nodes[~is_eligible]
        return np.delete(nodes, positions[is_eligible])

    def eligible_nodes(self, is_eligible_row: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the nodes with at least one eligible row, a mask (nodes,)."""
        return self.nodes_of_pairs(self.in_pair_order(is_eligible_row))

    @property
    def num_pairs(self) -> int:
        return len(self.nodes)

    def in_pair_order(self, of_rows: NDArray[ItemT]) -> NDArray[ItemT]:
        """Return what rows have, (rows,), in another order: the first row of each node, then further rows."""
        of_first = self._of_first_rows(of_rows)
        return of_first if self._is_one_to_one else np.concatenate([of_first, of_rows[self.further_rows]])

    def nodes_of_pairs(self, is_pair: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which nodes, (nodes,), have a pair in a mask, (pairs,), which is overwritten.

        The pairs are in the order of `in_pair_order`.
        """
        is_node, is_further = is_pair[: self._num_nodes], is_pair[self._num_nodes :]
        if len(is_further):
            is_node[self._further_nodes.take(np.flatnonzero(is_further)).astype(np.int64)] = True
        return is_node

    def _of_first_rows(self, of_rows: NDArray[ItemT]) -> NDArray[ItemT]:
        """Return what the first row of each node has, (nodes,), as a copy.

        Nodes are numbered as their rows are, but for rows that repeat an embedding. A mask of the first rows
        takes an eighth of the memory that their numbers take.
        """
        is_first = self._is_first_row
        if is_first is None:
            return of_rows.take(self._wide_first_rows)
        known = of_rows[: len(is_first)]
        return known.copy() if len(is_first) == self._num_nodes else known[is_first]

    @cached_property
    def _is_first_row(self) -> NDArray[np.bool_] | None:
        """Which rows, up to the last first one, are the first of a node; None if nodes have another order."""
        first_rows = self.first_rows()
        if not len(first_rows) or (first_rows[1:] <= first_rows[:-1]).any():
            return None
        is_first = np.zeros(int(first_rows[-1]) + 1, np.bool_)
        is_first[first_rows] = True
        return is_first

    def nodes_of_eligible(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return what `eligible_nodes` does, from the numbers of the eligible rows, ascending."""
        is_eligible = np.zeros(self._num_nodes, np.bool_)
        is_eligible[self.with_nodes(rows)[1] if self.has_distinct_rows else self._nodes_of_all(rows)] = True
        return is_eligible

    def with_nodes(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return those of some rows, (n,) ascending, that have a node, and the node of each.

        No row of the file may have several.
        """
        num_known = len(self._pair_of_row)
        if len(rows) and rows[-1] >= num_known:
            rows = rows[: np.searchsorted(rows, num_known)]
        nodes = self._nodes_at(rows)
        if nodes.min(initial=0) >= 0:
            return rows, nodes
        has_node = nodes >= 0
        return rows[has_node], nodes[has_node]

    def addresses_of(
        self, rows: NDArray[np.int64], of_nodes: Callable[[NDArray[np.int32]], NDArray[np.int64]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return those of some rows, (n,) ascending, that have a node, and the address of each one's code.

        `of_nodes` tells where the codes of nodes lie; always the same. No row of the file may have several.
        """
        if self._num_nodes >= _MIN_TABLED:
            if self._addresses is None:
                self._addresses = RowAddresses(self.rows, of_nodes(self.nodes.view(np.int32)))
            return self._addresses.find(rows)
        rows, nodes = self.with_nodes(rows)
        return rows, of_nodes(nodes)

    def pairs_of(self, rows: NDArray[np.uint32]) -> NDArray[np.int32]:
        """Return the positions of some rows, (n,), in the order of `in_pair_order`.

        Rows without a node are left out. No row of the file may have several.
        """
        if rows.max(initial=0) >= len(self._pair_of_row):
            rows = rows[rows < len(self._pair_of_row)]
        pairs = self._pair_of_row.take(rows)
        return pairs if pairs.min(initial=0) >= 0 else pairs[pairs >= 0]

    def _nodes_at(self, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the node of each row, (n,), or −1, where no row has several."""
        pairs = self._pair_of_row.take(rows)
        if self._is_one_to_one or pairs.max(initial=0) < self._num_nodes:
            return pairs
        is_further = pairs >= self._num_nodes
        pairs[is_further] = self._further_nodes[pairs[is_further] - self._num_nodes]
        return pairs

    @cached_property
    def _pair_of_row(self) -> NDArray[np.int32]:
        """The position of each row in the order of `in_pair_order`; −1 if it has no node."""
        positions = np.full(int(self.rows.max()) + 1 if len(self.rows) else 0, -1, np.int32)
        positions[self.first_rows()] = np.arange(self._num_nodes, dtype=np.int32)
        if not self._is_one_to_one:
            positions[self.further_rows] = np.arange(self._num_nodes, self.num_pairs, dtype=np.int32)
        return positions

    def first_rows(self) -> NDArray[np.int32]:
        """Return the first row of each node, (nodes,)."""
        marked = self.marked_rows
        return marked if self._is_one_to_one else np.where(marked < 0, ~marked, marked)

    @cached_property
    def _wide_first_rows(self) -> NDArray[np.int64]:
        """The first row of each node. numpy makes a mask by it in half the time that it takes by int32."""
        return self.first_rows().astype(np.int64)

    @cached_property
    def marked_rows(self) -> NDArray[np.int32]:
        """The first row of each node, (nodes,); where a node has several rows, −1 minus the first one."""
        if self._is_one_to_one:
            return np.ascontiguousarray(self.rows.view(np.int32))
        is_first = np.ones(len(self.nodes), np.bool_)
        is_first[self._further_pairs] = False
        marked = self.rows[is_first].view(np.int32)
        marked[self._further_nodes] ^= -1
        return marked

    @cached_property
    def _further_pairs(self) -> NDArray[np.int64]:
        """The pairs that are not the first of their node. Most contents are distinct, so they are few."""
        return np.flatnonzero(self.nodes[1:] == self.nodes[:-1]) + 1

    @cached_property
    def further_rows(self) -> NDArray[np.int64]:
        """The row of each further pair."""
        return self.rows[self._further_pairs].astype(np.int64)

    @cached_property
    def _further_nodes(self) -> NDArray[np.uint32]:
        """The node of each further pair, ascending."""
        return self.nodes[self._further_pairs]

    @cached_property
    def _by_row(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """The numbers of the pairs ordered by row, and the rows in that order. Built on demand."""
        order = np.argsort(self.rows, kind="stable").astype(np.uint32)
        return order, self.rows[order]


def _ranges(first: NDArray[np.int64], end: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of all half-open ranges, range after range; before them, each one's range."""
    lengths = end - first
    positions = np.repeat(np.arange(len(first)), lengths)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return positions, np.arange(len(positions)) + (first - starts)[positions]
