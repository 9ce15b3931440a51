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
        """`times` are those of all rows, (rows,)."""
        self._times = times
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

    def rows_within(self, least: int, most: int, max_rows: int) -> NDArray[np.int64] | None:
        """Return the rows with times from `least` to `most`, ascending; None if more than `max_rows` have.

        None also if more than half of the blocks would be read.
        """
        inside, partly = self._split(least, most)
        if (len(inside) - 1) * self._block_rows > max_rows or len(partly) > len(self._first) // 2:
            return None
        parts = [(block, np.arange(*self._range(block))) for block in inside]
        parts += [(block, self._rows_of_block(block, least, most)) for block in partly]
        parts.sort(key=lambda part: part[0])
        rows = np.concatenate([np.empty(0, np.int64), *(rows for _, rows in parts)])
        return rows if len(rows) <= max_rows else None

    def mask_within(self, least: int, most: int) -> NDArray[np.bool_]:
        """Return which rows have times from `least` to `most`, (rows,)."""
        mask = np.zeros(self._num_rows, np.bool_)
        inside, partly = self._split(least, most)
        for block in inside:
            start, end = self._range(block)
            mask[start:end] = True
        for block in partly:
            start, end = self._range(block)
            times = self._times[start:end]
            np.logical_and(times >= least, times <= most, out=mask[start:end])
        return mask

    def _split(self, least: int, most: int) -> tuple[list[int], list[int]]:
        """Return the blocks in which all rows have times from `least` to `most`, and where some may have."""
        may_have = np.flatnonzero((self._last >= least) & (self._first <= most))
        are_inside = (self._first[may_have] >= least) & (self._last[may_have] <= most)
        return may_have[are_inside].tolist(), may_have[~are_inside].tolist()

    def _range(self, block: int) -> tuple[int, int]:
        start = block * self._block_rows
        return start, min(start + self._block_rows, self._num_rows)

    def _rows_of_block(self, block: int, least: int, most: int) -> NDArray[np.int64]:
        start, end = self._range(block)
        times = self._times[start:end]
        return start + np.flatnonzero((times >= least) & (times <= most))

    def rows_of(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of some blocks, block after block."""
        rows = (blocks[:, None] * self._block_rows + np.arange(self._block_rows)).ravel()
        return rows[rows < self._num_rows]
