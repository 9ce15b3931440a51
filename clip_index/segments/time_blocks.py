"""Finds the latest rows of a segment without sorting all of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 4096


class TimeBlocks:
    """Rows in blocks whose earliest and latest times are known. Immutable and thread-safe.

    Uploads arrive roughly in the order of their times, so a few blocks hold the latest rows.
    """

    def __init__(self, times: NDArray[np.int64], block_rows: int = _BLOCK_ROWS) -> None:
        """`times` are those of all rows, (rows,). They are read once."""
        self._num_rows = len(times)
        self._block_rows = block_rows
        starts = np.arange(0, len(times), block_rows)
        self._first = np.minimum.reduceat(times, starts) if len(times) else times
        self._last = np.maximum.reduceat(times, starts) if len(times) else times

    def latest(self, until: int | None = None) -> Iterator[tuple[NDArray[np.int64], int | None]]:
        """Yield groups of rows, each with the latest time that rows of later groups may have, else None.

        A group has twice as many blocks as the one before. Every row of a time up to `until` is in
        a group; groups may hold other rows, too.
        """
        last = self._last if until is None else np.minimum(self._last, until)
        order = np.argsort(-last, kind="stable")
        if until is not None:
            order = order[self._first[order] <= until]
        start, num_blocks = 0, 1
        while start < len(order):
            blocks, behind = order[start : start + num_blocks], order[start + num_blocks :]
            yield self._rows_of(blocks), int(last[behind[0]]) if len(behind) else None
            start, num_blocks = start + num_blocks, 2 * num_blocks

    def _rows_of(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        rows = (blocks[:, None] * self._block_rows + np.arange(self._block_rows)).ravel()
        return rows[rows < self._num_rows]
