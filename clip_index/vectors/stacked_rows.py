"""The maps from nodes to rows of many files, asked for the nodes of all files in one call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.process_memory import ProcessMemory, address_of

_ROW_SHIFT = 2
_ROWS = ProcessMemory(1 << _ROW_SHIFT)


class StackedRows:
    """The rows of many files, numbered through. Each row has one node only. Immutable and thread-safe."""

    def __init__(self, files: Sequence[NodeRows], first_rows: Sequence[int]) -> None:
        """`first_rows` are the numbers of the first row of each file."""
        self._files = tuple(files)
        self._first_rows = np.array(first_rows)
        self._marked = [rows.marked_rows for rows in files]  # kept alive, because they are read by address
        self._addresses = np.array([address_of(marked) for marked in self._marked])

    def rows_of(
        self, files: NDArray[np.int64], nodes: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """Return pairs in the order of `nodes`, (n,), each of one of the files: a position, and a row.

        The positions are None if each node has one row.
        """
        addresses = nodes << _ROW_SHIFT
        addresses += self._addresses.take(files)
        marked = _ROWS.read(addresses).view(np.int32)
        rows: NDArray[np.int64] = self._first_rows.take(files)
        rows += marked
        if marked.min(initial=0) < 0:
            return self._with_further(np.flatnonzero(marked < 0), files, nodes, rows)
        return None, rows

    def _with_further(
        self,
        places: NDArray[np.int64],
        files: NDArray[np.int64],
        nodes: NDArray[np.int64],
        rows: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Put all rows of the nodes at some places into their places."""
        parts, counts, last = [], np.ones(len(rows), np.int64), 0
        for place in places.tolist():
            file = files[place]
            all_rows = self._files[file].rows_of_one(nodes[place]) + self._first_rows[file]
            parts += [rows[last:place], all_rows]
            counts[place], last = len(all_rows), place + 1
        return np.repeat(np.arange(len(rows)), counts), np.concatenate([*parts, rows[last:]])
