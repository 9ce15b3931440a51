"""An order in bands of equal length: a range of it becomes a mask by a comparison of bytes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_NUM_BANDS = 255
_NO_BAND = 255


class Range(NamedTuple):
    """Which items lie in whole bands of a range, (n,), and two further ranges of ranks that are half-open."""

    mask: NDArray[np.bool_]
    ends: tuple[tuple[int, int], tuple[int, int]]


class Bands:
    """The band of each item in an order, a byte an item. Immutable and thread-safe."""

    def __init__(self, bands: NDArray[np.uint8], num_ranks: int) -> None:
        """`bands`, (n,), are those of `bands_of`."""
        self._bands = bands
        self._length = _length_of(num_ranks)

    @property
    def nbytes(self) -> int:
        return self._bands.nbytes

    def within(self, first: int, last: int) -> Range:
        """Return which items have ranks in the half-open range from `first` to `last`."""
        low, high = -(-first // self._length), last // self._length  # whole bands
        if low >= high:
            return Range(np.zeros(len(self._bands), np.bool_), ((first, last), (last, last)))
        bands = self._bands if low == 0 else self._bands - np.uint8(low)
        mask: NDArray[np.bool_] = bands < np.uint8(high - low)
        return Range(mask, ((first, low * self._length), (high * self._length, last)))


def bands_of(rows: NDArray[np.uint32], num_rows: int) -> NDArray[np.uint8]:
    """Return the band of each row, (rows,), of which some, (n,), lie in an order."""
    bands = np.full(num_rows, _NO_BAND, np.uint8)
    bands[rows] = np.arange(len(rows)) // _length_of(len(rows))
    return bands


def _length_of(num_ranks: int) -> int:
    return max(1, -(-num_ranks // _NUM_BANDS))
