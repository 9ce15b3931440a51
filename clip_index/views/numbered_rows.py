"""Rows of several parts that are numbered through: those of the first part, then those of the second."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


class NumberedRows:
    """Knows where each part starts. Immutable and thread-safe."""

    def __init__(self, num_rows: Iterable[int]) -> None:
        """`num_rows` are the rows of each part."""
        self.starts: list[int] = starts_of(num_rows)

    def locate(self, row: int) -> tuple[int, int]:
        """Return the part that a row lies in, and its row there."""
        part = bisect_right(self.starts, row) - 1
        return part, row - self.starts[part]

    def content_ids(
        self, rows: NDArray[np.int64], ids_of: Callable[[int, NDArray[np.int64]], pa.Array]
    ) -> pa.Array:
        """Return the content ids of rows, (n,) strings. `ids_of` reads those of one part's rows."""
        parts = np.searchsorted(self.starts, rows, side="right") - 1
        order = np.argsort(parts, kind="stable")
        ids = [ids_of(part, rows[parts == part] - self.starts[part]) for part in np.unique(parts).tolist()]
        position = np.empty(len(rows), np.int64)
        position[order] = np.arange(len(rows))
        return pa.concat_arrays(ids).take(pa.array(position))


def starts_of(counts: Iterable[int]) -> list[int]:
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts[:-1]
