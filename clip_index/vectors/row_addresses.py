"""Where the code of each row lies in memory, as one look-up: a scan of few rows begins with it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_UNIT_SHIFT = 3
"""Codes begin at multiples of 8 bytes from each other, so 4 bytes a row reach over 16 GB."""

_MAX_UNITS = 2**31 - 1


class RowAddresses:
    """The address of each row's code; −1 for a row without a node. Immutable and thread-safe."""

    def __init__(self, rows: NDArray[np.uint32], addresses: NDArray[np.int64]) -> None:
        """`rows`, (n,), have their codes at `addresses`, (n,). Each row has one."""
        first = int(addresses.min()) if len(addresses) else 0
        distances = addresses - first
        shift = _UNIT_SHIFT if not (distances & (1 << _UNIT_SHIFT) - 1).any() else 0
        units = distances >> shift
        # As arrays, because numpy takes longer to convert numbers of Python than to compute with a few rows.
        self._first = np.array(first, np.int64)
        self._unit = np.array(1 << shift, np.int64)
        is_small = int(units.max(initial=0)) <= _MAX_UNITS
        num_rows = int(rows.max()) + 1 if len(rows) else 0
        self._units: NDArray[np.signedinteger] = np.full(num_rows, -1, np.int32 if is_small else np.int64)
        self._units[rows] = units
        self._is_complete = int(self._units.min(initial=0)) >= 0

    def find(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return those of some rows, (n,) ascending, that have a node, and the address of each one's code."""
        num_known = len(self._units)
        if len(rows) and rows[-1] >= num_known:
            rows = rows[: np.searchsorted(rows, num_known)]
        units = self._units.take(rows)
        if not self._is_complete:
            has_node = units >= 0
            rows, units = rows[has_node], units[has_node]
        addresses: NDArray[np.int64] = units * self._unit
        addresses += self._first
        return rows, addresses
