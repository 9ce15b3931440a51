"""Requests that wait until the index covers what they demand."""

from __future__ import annotations

from collections.abc import Mapping

from clip_index.reading.searcher import Searcher
from query_api.serving.served_index import ServedIndex
from query_api.serving.work_places import WorkPlaces


async def covered_searcher(
    served: ServedIndex, slots: WorkPlaces, min_offsets: Mapping[str, int], timeout_seconds: float
) -> Searcher:
    """Return a searcher with `next_offset` ≥ `min_offsets` in each shard named.

    Raises `ApiError` (unknown_partition, overloaded) at once, `NotYetCovered` after the timeout.
    """
    if served.covers(min_offsets):
        return served.searcher
    with slots.waiting():
        return await served.covered_searcher(min_offsets, timeout_seconds)
