"""What a filter and the dead rows leave of a segment or a tail."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.queries import Queries
from clip_index.vectors.scattered_codes import ScatteredCodes
from clip_index.vectors.vectors import NodeSelection, Vectors

FEW_PART = 8
"""Up to an eighth of the rows are few. A mask of more rows costs less than their numbers."""


class FewRows(NamedTuple):
    """Eligible rows, (n,), and the address of each one's code, (n,); `codes` reads these."""

    codes: ScatteredCodes
    rows: NDArray[np.int64]
    addresses: NDArray[np.int64]


class Eligible(Protocol):
    """What may be answered. None stands for all."""

    @property
    def is_row(self) -> NDArray[np.bool_] | None:
        """A mask of the rows, (rows,)."""
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

    is_row = None
    nodes = None
    nbytes = 0

    def few_rows(self, _queries: Queries) -> None:
        return None


class ManyEligible:
    """Rows as a mask, (rows,), and nodes as a bitmap. Immutable and thread-safe."""

    def __init__(self, is_row: NDArray[np.bool_], nodes: NodeSelection) -> None:
        self.is_row = is_row
        self.nodes = nodes

    @property
    def nbytes(self) -> int:
        return self.is_row.nbytes + self.nodes.nbytes

    def few_rows(self, _queries: Queries) -> None:
        return None


class FewEligible:
    """The numbers of few rows, (n,) ascending. What only some searches need is made when it is asked for.

    Immutable and thread-safe.
    """

    def __init__(
        self, vectors: Vectors, node_rows: NodeRows, rows: NDArray[np.int64], num_all_rows: int
    ) -> None:
        self._vectors = vectors
        self._node_rows = node_rows
        self._rows = rows
        self._num_all_rows = num_all_rows
        self._few: FewRows | None = None

    @cached_property
    def is_row(self) -> NDArray[np.bool_]:
        is_row = np.zeros(self._num_all_rows, np.bool_)
        is_row[self._rows] = True
        return is_row

    @cached_property
    def nodes(self) -> NodeSelection:
        return self._vectors.select(self._node_rows.nodes_of_eligible(self._rows))

    @property
    def nbytes(self) -> int:
        """The bytes with everything that can be asked for."""
        masks = self._num_all_rows + self._vectors.num_nodes // 8
        return masks + 5 * len(self._rows) * np.dtype(np.int64).itemsize

    def few_rows(self, queries: Queries) -> FewRows | None:
        few = self._few
        if few is None:
            codes = self._vectors.codes
            if codes is None or not self._node_rows.has_distinct_rows:
                return None
            rows, nodes = self._node_rows.with_nodes(self._rows)
            few = self._few = FewRows(codes, rows, self._vectors.addresses_of(nodes))
        return few if self._vectors.are_few(queries, len(few.rows)) else None


ALL_ELIGIBLE = AllEligible()


def eligible_of_mask(vectors: Vectors, node_rows: NodeRows, is_row: NDArray[np.bool_]) -> Eligible:
    """Return what a mask of the rows, (rows,), leaves."""
    if np.count_nonzero(is_row) <= len(is_row) // FEW_PART:
        return FewEligible(vectors, node_rows, np.flatnonzero(is_row), len(is_row))
    return ManyEligible(is_row, vectors.select(node_rows.eligible_nodes(is_row)))
