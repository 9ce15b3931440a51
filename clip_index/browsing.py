"""What an index holds without a query: its contents by time, the newest first."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.row_filter import RowFilter
from clip_index.searcher import Location, Searcher
from clip_index.segment_view import SegmentView


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
            is_wanted = view.eligible_rows(row_filter) & _is_of(modality, view)
            found.extend(_newest_of(shard.name, view, _rows_behind(after, shard.name, view, is_wanted), k))
    return heapq.nsmallest(k, found, key=lambda content: _order(content.place))


def _order(place: BrowsePlace) -> tuple[int, str, int]:
    """Latest first; of one time by shard, and the greatest offset first."""
    return -place.occurred_at_ms, place.shard, -place.offset


def _is_of(modality: Modality, view: SegmentView) -> NDArray[np.bool_]:
    return view.segment.is_image if modality == "image" else ~view.segment.is_image


def _rows_behind(
    after: BrowsePlace | None, shard: str, view: SegmentView, is_wanted: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the wanted rows of a segment that stand behind a place; all of them without one."""
    if after is None:
        return np.flatnonzero(is_wanted)
    times, offsets = _times_and_offsets(view)
    is_earlier = times < after.occurred_at_ms
    if shard > after.shard:
        is_earlier |= times == after.occurred_at_ms
    elif shard == after.shard:
        is_earlier |= (times == after.occurred_at_ms) & (offsets < after.offset)
    return np.flatnonzero(is_wanted & is_earlier)


def _newest_of(shard: str, view: SegmentView, rows: NDArray[np.int64], k: int) -> Iterator[NewestContent]:
    """Yield the k newest of a segment's rows, the newest first."""
    times, offsets = (column[rows] for column in _times_and_offsets(view))
    if len(rows) > k:
        kth_time = np.partition(times, len(times) - k)[len(times) - k]
        is_candidate = times >= kth_time
        rows, times, offsets = rows[is_candidate], times[is_candidate], offsets[is_candidate]
    for position in np.lexsort((-offsets, -times))[:k]:
        place = BrowsePlace(int(times[position]), shard, int(offsets[position]))
        yield NewestContent(place, Location(shard, view, int(rows[position])))


def _times_and_offsets(view: SegmentView) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    contents = view.segment.contents
    return contents.column("occurred_at_ms").to_numpy(), contents.column("offset").to_numpy()
