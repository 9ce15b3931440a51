"""How often the values of a field occur.

A segment's rows are counted once, dead ones included, because a segment does not change. The dead
rows are counted for each view and subtracted. Counts are Arrow tables with the columns `value` and
`count`, so that a million owners do not become a million Python objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clip_index.row_filter import RowFilter
from clip_index.segments.columns import count_column
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import ShardView

CountedField: TypeAlias = Literal["modality", "source", "owner_id"]


@dataclass(frozen=True, slots=True)
class ValueCounts:
    """Values with their counts, the most frequent first; equal counts are in alphabetical order.

    `num_values` is the number of distinct values, of which `values` may show only some.
    """

    values: tuple[tuple[str, int], ...]
    num_values: int


def count_values(
    shards: Iterable[ShardView], field: CountedField, row_filter: RowFilter | None = None, *, max_values: int
) -> ValueCounts:
    """Return how many live contents have each value of a field. Contents without a value do not count.

    Blocking.
    """
    tables = [
        table
        for shard in shards
        for view in shard.segments
        for table in _count_tables(view, field, row_filter)
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


def _count_tables(view: SegmentView, field: CountedField, row_filter: RowFilter | None) -> Iterator[pa.Table]:
    """Yield the counts of all rows, then the counts of the dead rows as negative numbers."""
    segment = view.segment
    yield segment.count_values(field, row_filter)
    if view.dead:
        dead = np.array(view.dead.to_array(), np.int64)
        if row_filter is not None:
            dead = dead[segment.row_mask(row_filter)[dead]]
        counted = count_column(segment.contents.column(field).take(dead))
        yield counted.set_column(1, "count", pc.negate(counted["count"]))
