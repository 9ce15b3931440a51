"""Which searches the event loop makes itself, because handing them to a thread and back costs time."""

from __future__ import annotations

import asyncio
import weakref

from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.request.options import RatedOptions
from query_api.serving.engine import Snapshot
from query_api.serving.request_slots import RequestSlots
from query_api.serving.workers import Workers
from query_api.telemetry.stages import Stages

DEFAULT_SECONDS = 0.01  # as long as the loop may be kept from other connections
_STAGES = ("search", "columns")


class QuickSearches:
    """Decides whether a plain search runs on the event loop. Used by the event loop's thread alone.

    It does if no other request is worked on, and if the last search of the same searcher took at most
    `max_seconds`. So the first search of each searcher runs in a worker, where it may wait for a disk.
    With 0 no search runs on the loop.
    """

    def __init__(self, slots: RequestSlots, workers: Workers, max_seconds: float = DEFAULT_SECONDS) -> None:
        self._slots = slots
        self._workers = workers
        self._max_seconds = max_seconds
        self._is_known_quick: weakref.ref[Snapshot] | None = None

    def note(self, searcher: Snapshot, stages: Stages) -> None:
        """Remember whether a search that has been made was quick."""
        seconds = sum(stages.seconds.get(stage, 0.0) for stage in _STAGES)
        self._is_known_quick = weakref.ref(searcher) if seconds <= self._max_seconds else None

    async def may_run(self, searcher: Snapshot, query: QueryEmbedding, options: RatedOptions) -> bool:
        """Whether the loop may make this search now."""
        known = self._is_known_quick
        if known is None or known() is not searcher or query.crops is not None or options.include:
            return False
        await asyncio.sleep(0)  # requests that have arrived together get as far as this one
        return self._slots.num_working <= 1 and not self._workers.is_busy
