"""Browsing: contents by time, the newest first, without a query."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.row_filter import RowFilter
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import Location, ShardView

_MAX_GROUPS = 4
"""Groups of 1, 2, 4 and 8 blocks. Reading more groups would cost more than reading the whole segment."""


@dataclass(frozen=True, slots=True)
class TimePosition:
    """The position of a content in the order by time. It is unique, and merges do not change it."""

    occurred_at_ms: int
    shard: str
    offset: int


@dataclass(frozen=True, slots=True)
class NewestContent:
    position: TimePosition
    location: Location


def find_newest(
    shards: Iterable[ShardView],
    *,
    k: int,
    modality: Modality,
    row_filter: RowFilter | None = None,
    after: TimePosition | None = None,
) -> list[NewestContent]:
    """Return the k live contents that occurred last, the latest first.

    With `after`, return only contents that follow this position. Uploads of the meantime precede
    it, so the next page neither repeats nor skips a content. Blocking.
    """
    found: list[NewestContent] = []
    for shard in shards:
        for view in shard.segments:
            wanted = _WantedRows(shard.name, view, modality, row_filter, after)
            found.extend(wanted.newest(k))
    return heapq.nsmallest(k, found, key=lambda content: _order(content.position))


def _order(position: TimePosition) -> tuple[int, str, int]:
    """Order by time, the latest first; equal times by shard, then by offset, the greatest first."""
    return -position.occurred_at_ms, position.shard, -position.offset


@dataclass(frozen=True, slots=True)
class _WantedRows:
    """The rows of one segment that the caller asks for."""

    shard: str
    view: SegmentView
    modality: Modality
    row_filter: RowFilter | None
    after: TimePosition | None

    def newest(self, k: int) -> list[NewestContent]:
        """Return the k newest rows, the newest first."""
        if self.view.num_live[self.modality] == 0:
            return []
        times, offsets = self._times_and_offsets()
        return [
            NewestContent(
                TimePosition(int(times[row]), self.shard, int(offsets[row])),
                Location(self.shard, self.view, row),
            )
            for row in self._newest_rows(k).tolist()
        ]

    def _newest_rows(self, k: int) -> NDArray[np.int64]:
        """Read the blocks that hold the latest rows. If too few of those rows are wanted, read all rows."""
        times, _ = self._times_and_offsets()
        newest = np.empty(0, np.int64)
        until = self.after.occurred_at_ms if self.after else None
        for rows, latest_left in islice(self.view.segment.time_blocks.latest(until), _MAX_GROUPS):
            is_wanted = self.view.are_eligible(rows, self.row_filter) & self._are_on_page(rows)
            newest = self._first(np.concatenate([newest, rows[is_wanted]]), k)
            if latest_left is None or (len(newest) == k and times[newest[-1]] > latest_left):
                return newest
        is_wanted = self.view.eligible_rows(self.row_filter) & self._are_on_page(slice(None))
        return self._first(np.flatnonzero(is_wanted), k)

    def _are_on_page(self, rows: NDArray[np.int64] | slice) -> NDArray[np.bool_]:
        """Return which of the rows have the modality and follow the position `after`."""
        are_on_page: NDArray[np.bool_] = self.view.segment.is_image[rows] == (self.modality == "image")
        if self.after is not None:
            are_on_page &= self._are_behind(self.after, rows)
        return are_on_page

    def _are_behind(self, position: TimePosition, rows: NDArray[np.int64] | slice) -> NDArray[np.bool_]:
        times, offsets = (column[rows] for column in self._times_and_offsets())
        are_earlier: NDArray[np.bool_] = times < position.occurred_at_ms
        if self.shard > position.shard:
            are_earlier |= times == position.occurred_at_ms
        elif self.shard == position.shard:
            are_earlier |= (times == position.occurred_at_ms) & (offsets < position.offset)
        return are_earlier

    def _first(self, rows: NDArray[np.int64], k: int) -> NDArray[np.int64]:
        """Return the k rows that come first, in order."""
        times, offsets = (column[rows] for column in self._times_and_offsets())
        if len(rows) > k:
            kth_time = np.partition(times, len(times) - k)[len(times) - k]
            is_candidate = times >= kth_time
            rows, times, offsets = rows[is_candidate], times[is_candidate], offsets[is_candidate]
        return rows[np.lexsort((-offsets, -times))[:k]]

    def _times_and_offsets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        contents = self.view.segment.contents
        return contents.column("occurred_at_ms").to_numpy(), contents.column("offset").to_numpy()
