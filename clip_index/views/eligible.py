"""What a filter and the dead rows leave of a segment or a tail."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.queries import Queries
from clip_index.vectors.scattered_codes import ScatteredCodes
from clip_index.vectors.vectors import NodeSelection, Vectors, pack_bits

FEW_PART = 8
"""Up to an eighth of the rows are few. A mask of more rows costs less than their numbers."""


class FewRows(NamedTuple):
    """Eligible rows, (n,), and the address of each one's code, (n,); `codes` reads these."""

    codes: ScatteredCodes
    rows: NDArray[np.int64]
    addresses: NDArray[np.int64]


class Eligible(Protocol):
    """What may be answered. None stands for all."""

    def are_rows(self, rows: NDArray[np.int64]) -> NDArray[np.bool_] | None:
        """Return which of some rows, (n,), may be answered."""
        ...

    @property
    def nodes(self) -> NodeSelection | None:
        """The nodes that have such a row."""
        ...

    @property
    def nbytes(self) -> int: ...

    def few_rows(self, queries: Queries) -> FewRows | None:
        """Return the rows with their codes, if the queries are best answered by a scan of these alone.

        None also where rows cannot be scanned by their codes: several windows of a text have a row, and
        quantised codes are scored again.
        """
        ...


class AllEligible:
    """There is no filter, and no dead row."""

    nodes = None
    nbytes = 0

    def are_rows(self, _rows: NDArray[np.int64]) -> None:
        return None

    def few_rows(self, _queries: Queries) -> None:
        return None


class ManyEligible:
    """Rows and nodes as bitmaps, because masks take eight times the memory. Immutable and thread-safe."""

    def __init__(self, is_row: NDArray[np.bool_], nodes: NodeSelection) -> None:
        """`is_row` is a mask of the rows, (rows,)."""
        self._row_bits = pack_bits(is_row)
        self.nodes = nodes

    @property
    def nbytes(self) -> int:
        return self._row_bits.nbytes + self.nodes.nbytes

    def are_rows(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        bits = self._row_bits[rows >> 3] >> (rows & 7).astype(np.uint8)
        are_rows: NDArray[np.bool_] = (bits & 1).view(np.bool_)
        return are_rows

    def few_rows(self, _queries: Queries) -> None:
        return None


class RangeEligible:
    """Nodes with a row that passes a filter on ranges. Of the rows, those that are asked for are looked at.

    Immutable and thread-safe.
    """

    def __init__(
        self, nodes: NodeSelection, are_rows: Callable[[NDArray[np.int64]], NDArray[np.bool_]]
    ) -> None:
        """`are_rows` returns which of some rows, (n,), may be answered."""
        self.nodes = nodes
        self._are_rows = are_rows

    @property
    def nbytes(self) -> int:
        return self.nodes.nbytes

    def are_rows(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._are_rows(rows)

    def few_rows(self, _queries: Queries) -> None:
        return None


class LiveEligible:
    """The rows that are not dead, as a mask, (rows,): every search without a filter asks it.

    Immutable and thread-safe.
    """

    def __init__(self, is_live: NDArray[np.bool_], nodes: NodeSelection) -> None:
        self._is_live = is_live
        self.nodes = nodes

    @property
    def nbytes(self) -> int:
        return self._is_live.nbytes + self.nodes.nbytes

    def are_rows(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return self._is_live[rows]

    def few_rows(self, _queries: Queries) -> None:
        return None


class FewEligible:
    """The numbers of few rows, (n,) ascending. What only some searches need is made when it is asked for.

    Immutable and thread-safe.
    """

    def __init__(self, vectors: Vectors, node_rows: NodeRows, rows: NDArray[np.int64]) -> None:
        self._vectors = vectors
        self._node_rows = node_rows
        self._rows = rows
        self._few: FewRows | None = None

    def are_rows(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        return np.isin(rows, self._rows)

    @cached_property
    def nodes(self) -> NodeSelection:
        return self._vectors.select(self._node_rows.nodes_of_eligible(self._rows))

    @property
    def nbytes(self) -> int:
        """The bytes with everything that can be asked for."""
        return self._vectors.num_nodes // 8 + 5 * self._rows.nbytes

    def few_rows(self, queries: Queries) -> FewRows | None:
        codes = self._vectors.codes
        if codes is None or not self._vectors.are_few(queries, len(self._rows)):
            return None
        if self._few is None and self._node_rows.has_distinct_rows:
            self._few = FewRows(codes, *self._node_rows.addresses_of(self._rows, self._vectors.addresses_of))
        return self._few


ALL_ELIGIBLE = AllEligible()


def eligible_of_mask(vectors: Vectors, node_rows: NodeRows, is_row: NDArray[np.bool_]) -> Eligible:
    """Return what a mask of the rows, (rows,), leaves."""
    if np.count_nonzero(is_row) <= len(is_row) // FEW_PART:
        return FewEligible(vectors, node_rows, np.flatnonzero(is_row))
    return ManyEligible(is_row, vectors.select(node_rows.eligible_nodes(is_row)))
