"""Finds rows of a segment by their times, without a look at all of them."""

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
            yield self.rows_of(blocks), int(last[behind[0]]) if len(behind) else None
            start, num_blocks = start + num_blocks, 2 * num_blocks

    def split(self, least: float, most: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the blocks in which all rows have times from `least` to `most`, and where some may have."""
        is_inside = (self._first >= least) & (self._last <= most)
        may_have = (self._last >= least) & (self._first <= most)
        return np.flatnonzero(is_inside), np.flatnonzero(may_have & ~is_inside)

    def mask_of(self, blocks: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return a mask of the rows of some blocks, (rows,)."""
        by_block = np.zeros((len(self._first), self._block_rows), np.bool_)
        by_block[blocks] = True
        return by_block.ravel()[: self._num_rows]

    def rows_of(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of some blocks, block after block."""
        rows = (blocks[:, None] * self._block_rows + np.arange(self._block_rows)).ravel()
        return rows[rows < self._num_rows]
