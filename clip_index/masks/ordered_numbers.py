"""Numbers in their order with the rows that they belong to: a range is found by binary search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from clip_index.row_filter import InRange


@dataclass(frozen=True, slots=True)
class OrderedNumbers:
    """Ascending numbers, (n,), and the row of each. Immutable and thread-safe."""

    numbers: NDArray[np.float64]
    rows: NDArray[np.uint32]

    @property
    def nbytes(self) -> int:
        return self.numbers.nbytes + self.rows.nbytes

    def rows_within(self, condition: InRange, most: int) -> NDArray[np.int64] | None:
        """Return the rows whose numbers keep the bounds, ascending; None if they are more than `most`.

        None also if there are no bounds that an order can tell.
        """
        found = self.range_of(condition)
        if found is None or found[1] - found[0] > most:
            return None
        return _ascending(self.rows[found[0] : found[1]].copy())

    def range_of(self, condition: InRange) -> tuple[int, int] | None:
        """Return the half-open range of ranks whose numbers keep the bounds; None if no order can tell it."""
        first, last, has_bounds = 0, len(self.rows), False
        for bound, side, is_least in (
            (condition.gt, "right", True),
            (condition.gte, "left", True),
            (condition.lt, "left", False),
            (condition.lte, "right", False),
        ):
            if bound is None:
                continue
            if isnan(bound):
                return None
            has_bounds = True
            position = int(self.numbers.searchsorted(float(bound), side))  # type: ignore[call-overload]
            if is_least:
                first = max(first, position)
            else:
                last = min(last, position)
        return (first, max(first, last)) if has_bounds else None

    def rows_with(self, numbers: Sequence[float], most: int) -> NDArray[np.int64] | None:
        """Return the rows that have one of the numbers, ascending; None if they are more than `most`."""
        wanted = np.unique(np.array(numbers, np.float64))
        first = np.searchsorted(self.numbers, wanted, side="left").tolist()
        last = np.searchsorted(self.numbers, wanted, side="right").tolist()
        return self._rows_of(list(zip(first, last, strict=True)), most)

    def _rows_of(self, ranges: Sequence[tuple[int, int]], most: int) -> NDArray[np.int64] | None:
        if sum(last - first for first, last in ranges) > most:
            return None
        return _ascending(np.concatenate([self.rows[:0], *(self.rows[first:last] for first, last in ranges)]))


def _ascending(rows: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Return rows, (n,), in their order; they are overwritten."""
    rows.sort()
    return rows.astype(np.int64)


def order_numbers(numbers: NDArray[np.float64], rows: NDArray[np.int64] | None) -> OrderedNumbers:
    """Order numbers, (n,), with their rows, (n,), or 0 … n − 1. NaN keeps no bound and equals nothing."""
    order = np.argsort(numbers, kind="stable")
    order = order[: len(order) - np.count_nonzero(np.isnan(numbers))]
    return OrderedNumbers(numbers[order], (order if rows is None else rows[order]).astype(np.uint32))
