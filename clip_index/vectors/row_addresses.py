"""Where the code of each row lies in memory, as one look-up: a scan of few rows begins with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NO_ADDRESS = -1


class RowAddresses:
    """The address of each row's code, 8 bytes a row. Immutable and thread-safe.

    Distances in 4 bytes, which were multiplied and added for each search, made a new filter that keeps 0.5 %
    of 100,000 rows take 3 % longer.
    """

    def __init__(self, rows: NDArray[np.uint32], addresses: NDArray[np.int64]) -> None:
        """`rows`, (n,), have their codes at `addresses`, (n,). Each row has one."""
        num_rows = int(rows.max()) + 1 if len(rows) else 0
        self._addresses = np.full(num_rows, _NO_ADDRESS, np.int64)
        self._addresses[rows] = addresses
        self._is_complete = int(self._addresses.min(initial=0)) >= 0

    def find(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return those of some rows, (n,) ascending, that have a node, and the address of each one's code."""
        num_known = len(self._addresses)
        if len(rows) and rows[-1] >= num_known:
            rows = rows[: np.searchsorted(rows, num_known)]
        addresses = self._addresses.take(rows)
        if self._is_complete:
            return rows, addresses
        has_node = addresses != _NO_ADDRESS
        return rows[has_node], addresses[has_node]
