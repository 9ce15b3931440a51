"""Requests that wait until the index covers what they demand."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from query_api.serving.engine import Snapshot
from query_api.serving.served_index import SERVED_INDEX
from query_api.serving.work_places import WORK_PLACES


async def covered_searcher(
    request: web.Request, min_offsets: Mapping[str, int], timeout_seconds: float
) -> Snapshot:
    """Return a searcher with `next_offset` ≥ `min_offsets` in each shard named.

    Raises `ApiError` (unknown_partition, overloaded) at once, `NotYetCovered` after the timeout.
    """
    served = request.app[SERVED_INDEX]
    if served.covers(min_offsets):
        return served.searcher
    with request.app[WORK_PLACES].waiting():
        return await served.covered_searcher(min_offsets, timeout_seconds)
