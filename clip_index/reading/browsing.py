"""What an index holds without a query: its contents by time, the newest first."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.reading.searcher import Searcher
from clip_index.reading.segment_view import SegmentView
from clip_index.reading.snapshot import Location
from clip_index.row_filter import RowFilter

_MAX_GROUPS = 4
"""Of 1, 2, 4 and 8 blocks; further ones would cost more than a look at the whole segment."""


@dataclass(frozen=True, slots=True)
class BrowsePlace:
    """Where a content stands among all by time. No two share one, and merges do not change it."""

    occurred_at_ms: int
    shard: str
    offset: int


@dataclass(frozen=True, slots=True)
class NewestContent:
    place: BrowsePlace
    location: Location


def find_newest(
    searcher: Searcher,
    *,
    k: int,
    modality: Modality,
    row_filter: RowFilter | None = None,
    after: BrowsePlace | None = None,
) -> list[NewestContent]:
    """Return the k live contents that occurred last, the last one first; with `after` those behind it.

    Blocking. What is uploaded meanwhile stands before `after`, so pages neither repeat nor skip.
    """
    found: list[NewestContent] = []
    for shard in searcher.shard_views:
        for view in shard.segments:
            part = _Part(shard.name, view, modality, row_filter, after)
            found.extend(part.newest(k))
    return heapq.nsmallest(k, found, key=lambda content: _order(content.place))


def _order(place: BrowsePlace) -> tuple[int, str, int]:
    """Latest first; of one time by shard, and the greatest offset first."""
    return -place.occurred_at_ms, place.shard, -place.offset


@dataclass(frozen=True, slots=True)
class _Part:
    """What of one segment may be answered."""

    shard: str
    view: SegmentView
    modality: Modality
    row_filter: RowFilter | None
    after: BrowsePlace | None

    def newest(self, k: int) -> list[NewestContent]:
        """Return the k newest rows, the newest first."""
        if self.view.num_live[self.modality] == 0:
            return []
        times, offsets = self._times_and_offsets()
        return [
            NewestContent(
                BrowsePlace(int(times[row]), self.shard, int(offsets[row])),
                Location(self.shard, self.view, row),
            )
            for row in self._newest_rows(k).tolist()
        ]

    def _newest_rows(self, k: int) -> NDArray[np.int64]:
        """Look where the latest rows stand; where few of them are wanted, look at all."""
        times, _ = self._times_and_offsets()
        newest = np.empty(0, np.int64)
        until = self.after.occurred_at_ms if self.after else None
        for rows, latest_behind in islice(self.view.segment.time_blocks.latest(until), _MAX_GROUPS):
            is_wanted = self.view.are_eligible(rows, self.row_filter) & self._are_asked_for(rows)
            newest = self._first(np.concatenate([newest, rows[is_wanted]]), k)
            if latest_behind is None or (len(newest) == k and times[newest[-1]] > latest_behind):
                return newest
        is_wanted = self.view.eligible_rows(self.row_filter) & self._are_asked_for(slice(None))
        return self._first(np.flatnonzero(is_wanted), k)

    def _are_asked_for(self, rows: NDArray[np.int64] | slice) -> NDArray[np.bool_]:
        """Return which of the rows are of the modality and stand behind the place."""
        are_asked_for: NDArray[np.bool_] = self.view.segment.is_image[rows] == (self.modality == "image")
        if self.after is not None:
            are_asked_for &= self._are_behind(self.after, rows)
        return are_asked_for

    def _are_behind(self, place: BrowsePlace, rows: NDArray[np.int64] | slice) -> NDArray[np.bool_]:
        times, offsets = (column[rows] for column in self._times_and_offsets())
        are_earlier: NDArray[np.bool_] = times < place.occurred_at_ms
        if self.shard > place.shard:
            are_earlier |= times == place.occurred_at_ms
        elif self.shard == place.shard:
            are_earlier |= (times == place.occurred_at_ms) & (offsets < place.offset)
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
