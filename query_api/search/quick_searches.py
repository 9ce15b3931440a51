"""Which searches the event loop makes itself, because handing them to a thread and back costs time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

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

    It does if the last search of the same searcher took at most `max_seconds`, and if no other request is
    worked on. The queries of a batch are taken to need that time each. So the first search of a searcher
    runs in a worker, where it may wait for a disk, unless a few small segments are all that it has beside
    the last one. With 0 no search runs on the loop.

    With one processor, short searches run on the loop beside other requests too. Nothing runs side by side
    there, and a worker waits for Python's lock at each of its calls of FAISS. Of the queries of two clients,
    those in a worker were 3 to 5 of a hundred, and four fifths of the slowest hundredth.
    """

    def __init__(
        self,
        slots: RequestSlots,
        workers: Workers,
        max_seconds: float = DEFAULT_SECONDS,
        *,
        has_one_processor: bool = False,
    ) -> None:
        self._slots = slots
        self._workers = workers
        self._max_seconds = max_seconds
        self._has_one_processor = has_one_processor
        self._searched: object = None  # the lineage of the last searcher
        self._seconds_of_query = 0.0

    def note(self, searcher: Snapshot, stages: Stages, num_queries: int = 1) -> None:
        """Remember how long a search that has been made took for each of its queries."""
        seconds = sum(stages.seconds.get(stage, 0.0) for stage in _STAGES)
        self._searched = searcher.lineage
        self._seconds_of_query = seconds / num_queries

    async def may_run(
        self, searcher: Snapshot, searches: Sequence[tuple[QueryEmbedding, RatedOptions]]
    ) -> bool:
        """Whether the loop may make these searches now, in one call."""
        if self._searched is not searcher.lineage:
            return False
        if len(searches) * self._seconds_of_query > self._max_seconds:
            return False
        if any(query.crops is not None or options.include for query, options in searches):
            return False
        await asyncio.sleep(0)  # requests that have arrived together get as far as this one
        return self._has_one_processor or (self._slots.num_working <= 1 and not self._workers.is_busy)
