"""Finds rows of a segment by their times, without a look at all of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 4096
_MAX_UNCHECKED = 2
"""To read so many blocks takes no longer than to find out which of them must be read."""


class TakenTimes:
    """The times of some rows, taken when they are asked for. Immutable and thread-safe."""

    def __init__(self, times: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
        """`rows`, (n,), are those whose `times` are meant."""
        self._times = times
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, part: slice) -> NDArray[np.int64]:
        return self._times.take(self._rows[part])


class TimeBlocks:
    """Rows in blocks whose earliest and latest times are known. Immutable and thread-safe.

    Uploads arrive roughly in the order of their times, so a few blocks hold the latest rows.
    """

    def __init__(self, times: NDArray[np.int64] | TakenTimes, block_rows: int = _BLOCK_ROWS) -> None:
        """`times` are those of all rows, (rows,)."""
        self._times = times
        self._num_rows = len(times)
        self._block_rows = block_rows
        starts, of_all = np.arange(0, len(times), block_rows), times[:]
        self._first = np.minimum.reduceat(of_all, starts) if len(of_all) else of_all
        self._last = np.maximum.reduceat(of_all, starts) if len(of_all) else of_all
        # Both ascend, whatever order the times have. Of lists, because numpy takes longer for one number.
        self._last_until: list[int] = np.maximum.accumulate(self._last).tolist()
        self._first_from: list[int] = np.minimum.accumulate(self._first[::-1])[::-1].tolist()

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
        if len(partly) > len(self._first) // 2:
            return None
        if len(partly) == 1 and not inside:
            rows = self._rows_of_block(partly[0], least, most)
        elif (sum(end - start for start, end in inside) - 1) * self._block_rows > max_rows:
            return None
        else:
            parts = [(start, np.arange(*self._range(start, end))) for start, end in inside]
            parts += [(block, self._rows_of_block(block, least, most)) for block in partly]
            parts.sort(key=lambda part: part[0])
            rows = np.concatenate([np.empty(0, np.int64), *(rows for _, rows in parts)])
        return rows if len(rows) <= max_rows else None

    def mask_within(self, least: int, most: int) -> NDArray[np.bool_]:
        """Return which rows have times from `least` to `most`, (rows,)."""
        mask = np.zeros(self._num_rows, np.bool_)
        self.mark_within(least, most, mask)
        return mask

    def mark_within(self, least: int, most: int, mask: NDArray[np.bool_]) -> None:
        """Mark the rows that have times from `least` to `most` in a mask of zeros, (rows or more,)."""
        inside, partly = self._split(least, most)
        for block, end_block in inside:
            start, end = self._range(block, end_block)
            mask[start:end] = True
        for block in partly:
            start, end = self._range(block, block + 1)
            mask[start:end] = self._is_within(block, least, most)

    def _split(self, least: int, most: int) -> tuple[list[tuple[int, int]], list[int]]:
        """Return where all rows have times from `least` to `most`, and the blocks where some may have.

        The former are half-open ranges of blocks.
        """
        start, end = bisect_left(self._last_until, least), bisect_right(self._first_from, most)
        first, last = bisect_left(self._first_from, least), bisect_right(self._last_until, most)
        if first >= last:
            first = last = end
        partly = [*range(start, first), *range(last, end)]
        if len(partly) <= _MAX_UNCHECKED:
            return [(first, last)] if first < last else [], partly
        return self._split_unordered(start, end, least, most)

    def _split_unordered(
        self, start: int, end: int, least: int, most: int
    ) -> tuple[list[tuple[int, int]], list[int]]:
        """Return what `_split` does, from a look at each block from `start` to `end`."""
        first, last = self._first[start:end], self._last[start:end]
        may_have = np.flatnonzero((last >= least) & (first <= most))
        are_inside = (first[may_have] >= least) & (last[may_have] <= most)
        blocks = may_have + start
        return list(_runs(blocks[are_inside].tolist())), blocks[~are_inside].tolist()

    def _range(self, block: int, end_block: int) -> tuple[int, int]:
        """Return the half-open range of rows that a half-open range of blocks has."""
        return block * self._block_rows, min(end_block * self._block_rows, self._num_rows)

    def _rows_of_block(self, block: int, least: int, most: int) -> NDArray[np.int64]:
        return self._is_within(block, least, most).nonzero()[0] + block * self._block_rows

    def _is_within(self, block: int, least: int, most: int) -> NDArray[np.bool_]:
        """Return which rows of a block have times from `least` to `most`, (n,)."""
        start, end = self._range(block, block + 1)
        times = self._times[start:end]
        is_within: NDArray[np.bool_] = times >= least
        if self._last[block] > most:
            is_within &= times <= most
        return is_within

    def rows_of(self, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of some blocks, block after block."""
        rows = (blocks[:, None] * self._block_rows + np.arange(self._block_rows)).ravel()
        return rows[rows < self._num_rows]


def _runs(blocks: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the half-open ranges that ascending blocks make up."""
    first = last = 0
    for block in blocks:
        if block != last:
            if first < last:
                yield first, last
            first = block
        last = block + 1
    if first < last:
        yield first, last
