"""How often the values of a field occur: counted once for each immutable segment, its dead rows apart.

Tables of two columns, `value` and `count`, so that a million owners are no Python objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clip_index.reading.searcher import Searcher
from clip_index.reading.segment_view import SegmentView
from clip_index.row_filter import RowFilter
from clip_index.segments.columns import count_column

CountedField: TypeAlias = Literal["modality", "source", "owner_id"]


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """The most frequent values first, equally frequent ones in alphabetical order; `num_values` in all."""

    values: tuple[tuple[str, int], ...]
    num_values: int


def count_values(
    searcher: Searcher, field: CountedField, row_filter: RowFilter | None = None, *, max_values: int
) -> ValueCounts:
    """Return how many live contents have each value of a field; those without one are not counted. Blocking.

    An id that producers sent to several partitions counts in each.
    """
    tables = [
        table
        for shard in searcher.shard_views
        for view in shard.segments
        for table in _tables_of(view, field, row_filter)
    ]
    if not tables:
        return ValueCounts((), 0)
    summed = pa.concat_tables(tables).group_by("value").aggregate([("count", "sum")])
    live = summed.filter(pc.greater(summed["count_sum"], 0))
    order = [("count_sum", "descending"), ("value", "ascending")]
    best = (
        live.take(pc.select_k_unstable(live, min(max_values, live.num_rows), order))
        if live.num_rows
        else live
    )
    pairs = zip(best["value"].to_pylist(), best["count_sum"].to_pylist(), strict=True)
    return ValueCounts(tuple(pairs), live.num_rows)


def _tables_of(view: SegmentView, field: CountedField, row_filter: RowFilter | None) -> Iterator[pa.Table]:
    """Yield the counts of all rows, which are the segment's own, and those of the dead ones as negatives."""
    segment = view.segment
    yield segment.count_values(field, row_filter)
    if view.dead:
        dead = np.array(view.dead.to_array(), np.int64)
        if row_filter is not None:
            dead = dead[segment.row_mask(row_filter)[dead]]
        counted = count_column(segment.contents.column(field).take(dead))
        yield counted.set_column(1, "count", pc.negate(counted["count"]))
