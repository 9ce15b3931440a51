"""Evaluates filters on numbers and times for the nodes of a vector file, without a mask of all rows.

To compare 250,000 numbers and to turn a mask of rows into one of nodes takes 0.9 ms. So the numbers' bands, a
byte each, lie in the order of the file's pairs: the first row of each node, then the further rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from clip_index.masks.bands import Bands, bands_of
from clip_index.masks.condition_masks import Mask, number_mask, whole_bounds
from clip_index.masks.ordered_numbers import OrderedNumbers
from clip_index.masks.row_masks import RowMasks, combine
from clip_index.masks.time_blocks import TakenTimes, TimeBlocks
from clip_index.row_filter import METADATA_PREFIX, TIME_FIELD, Condition, InRange, RowFilter
from clip_index.storage.bounded_cache import BoundedCache
from clip_index.vectors.node_rows import NodeRows

_NUM_CACHED_KEYS = 32


class PairMasks:
    """The masks of one vector file's pairs of node and row. Thread-safe."""

    def __init__(self, masks: RowMasks, node_rows: NodeRows) -> None:
        """`masks` are those of the segment's rows."""
        self._masks = masks
        self._node_rows = node_rows
        self._bands: BoundedCache[str, Bands] = BoundedCache(
            _NUM_CACHED_KEYS, size_of=lambda bands: bands.nbytes
        )

    def find(self, row_filter: RowFilter) -> Mask | None:
        """Return where the filter holds, (pairs,) in the order of `NodeRows.in_pair_order`.

        None if it has a condition that no order of values tells, or if rows have several nodes.
        """
        if not self._masks.has_orders or not self._node_rows.has_distinct_rows:
            return None
        masks: dict[int, Callable[[], Mask]] = {}
        for condition in (*row_filter.must, *row_filter.should, *row_filter.must_not):
            mask = self._find_mask(condition)
            if mask is None:
                return None
            masks[id(condition)] = mask
        return combine(row_filter, lambda condition: masks[id(condition)](), self._node_rows.num_pairs)

    def _find_mask(self, condition: Condition) -> Callable[[], Mask] | None:
        """Return what evaluates a condition; None if no order can do it."""
        if not isinstance(condition, InRange):
            return None
        if condition.field == TIME_FIELD:
            bounds = whole_bounds(condition)
            return None if bounds is None else partial(self._mask_of_times, *bounds)
        if not condition.field.startswith(METADATA_PREFIX):
            return None
        key = condition.field.removeprefix(METADATA_PREFIX)
        ordered = self._masks.numbers_of(key)
        found = None if ordered is None else ordered.range_of(condition)
        if ordered is None or found is None:
            return None
        return partial(self._mask_of_numbers, key, ordered, *found)

    def _mask_of_numbers(self, key: str, ordered: OrderedNumbers, first: int, last: int) -> Mask:
        bands = self._bands.find_or_build(key, lambda: self._bands_of(ordered))
        mask, ends = bands.within(first, last)
        for start, end in ends:
            if start < end:
                pairs = self._node_rows.pairs_of(ordered.rows[start:end])
                mask[pairs.astype(np.int64)] = True  # numpy indexes by 32 bits more slowly
        return mask

    def _bands_of(self, ordered: OrderedNumbers) -> Bands:
        of_rows = bands_of(ordered.rows, self._masks.num_rows)
        return Bands(self._node_rows.in_pair_order(of_rows), len(ordered.rows))

    def _mask_of_times(self, least: int, most: int) -> Mask:
        further = self._further_times
        mask = np.zeros(self._node_rows.num_pairs, np.bool_)
        self._time_blocks.mark_within(least, most, mask)
        mask[len(mask) - len(further) :] = (further >= least) & (further <= most)
        return mask

    @cached_property
    def _time_blocks(self) -> TimeBlocks:
        return TimeBlocks(TakenTimes(self._masks.times, self._node_rows.first_rows()))

    @cached_property
    def _further_times(self) -> NDArray[np.int64]:
        return self._masks.times[self._node_rows.further_rows]

    def holds_at(self, row_filter: RowFilter, rows: NDArray[np.int64]) -> Mask:
        """Return at which of some rows, (n,), a filter holds that `find` has evaluated."""
        return combine(row_filter, lambda condition: self._holds_at(condition, rows), len(rows))

    def _holds_at(self, condition: Condition, rows: NDArray[np.int64]) -> Mask:
        assert isinstance(condition, InRange)
        if condition.field != TIME_FIELD:
            key = condition.field.removeprefix(METADATA_PREFIX)
            return number_mask(self._masks.numbers_at(key, rows), condition)
        bounds, times = whole_bounds(condition), self._masks.times[rows]
        assert bounds is not None
        least, most = bounds
        within: Mask = (times >= least) & (times <= most)
        return within
