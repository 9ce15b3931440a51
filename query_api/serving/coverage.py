"""Requests that wait until the index covers what they demand."""

from __future__ import annotations

from collections.abc import Mapping

from query_api.serving.engine import Snapshot
from query_api.serving.request_slots import CallerSlots
from query_api.serving.served_index import ServedIndex


async def covered_searcher(
    served: ServedIndex, slots: CallerSlots, min_offsets: Mapping[str, int], timeout_seconds: float
) -> Snapshot:
    """Return a searcher with `next_offset` ≥ `min_offsets` in each shard named.

    Raises `ApiError` (unknown_partition, overloaded) at once, `NotYetCovered` after the timeout.
    """
    if served.covers(min_offsets):
        return served.searcher
    with slots.waiting():
        return await served.covered_searcher(min_offsets, timeout_seconds)
