"""Which of two contents is newer: the one of the greater version, then of the later time.

That is for contents of one id in two shards, whose offsets do not compare.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Recencies:
    """How new each of some contents is. Shapes are (n,); a content without a version has -1."""

    versions: NDArray[np.int64]
    times_ms: NDArray[np.int64]

    def are_newer_than(self, others: Recencies) -> NDArray[np.bool_]:
        """Return which of these contents are newer than those beside them."""
        are_later = (self.versions == others.versions) & (self.times_ms > others.times_ms)
        are_newer: NDArray[np.bool_] = (self.versions > others.versions) | are_later
        return are_newer


def recencies(contents: pa.RecordBatch, rows: NDArray[np.int64]) -> Recencies:
    """Read how new the contents in some rows are."""
    taken = contents.select(["version", "occurred_at_ms"]).take(pa.array(rows))
    versions, times_ms = taken.columns
    return Recencies(np.asarray(pc.fill_null(versions, -1)), np.asarray(pc.fill_null(times_ms, 0)))
