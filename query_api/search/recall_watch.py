"""Watches how much of the true answers live queries get: some of them are answered again, exactly.

Merged segments are searched in part, and how large a part is calibrated at each merge with queries
that the merge makes up. Real queries may be of another kind. So one query of some hundred is kept
with the snapshot that answered it. In the background it is answered again, once as before (the same
snapshot gives the same answer) and once by a scan of everything, and the hits are compared. A query is
whatever asks for rankings: a search, each search of a batch, a recommendation, a call of an earlier service.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog
from aiohttp import web

from clip_index.content import MODALITIES, Modality
from query_api.search.ranking.ranking_requests import RankingRequest
from query_api.serving.background_job import BackgroundJob
from query_api.serving.best_of_crops import best_of_crops
from query_api.serving.engine import Hit, Snapshot
from query_api.telemetry.metrics import Metrics

log = structlog.get_logger()
_MAX_K = 100
_TIE = 1e-4  # a hit counts if its score is as good as that of the last true one, within rounding
_MAX_WAITING = 4  # each holds its snapshot, and so the files of its generation
_NUM_OF_GAUGE = 1_000
BuildRankings: TypeAlias = Callable[[], Sequence[RankingRequest]]


@dataclass(frozen=True, slots=True)
class RecallSettings:
    """One of `every` queries is compared, none if it is 0, for at most `share` of one processor's time.

    If that is not enough for all that are drawn, the latest ones are compared.
    """

    every: int = 500
    share: float = 1 / 25


@dataclass(frozen=True, slots=True)
class _Sample:
    """A query that was answered, the snapshot that answered it, and the gauge that it tells something of.

    What it asks for is built only if it is compared.
    """

    searcher: Snapshot
    build: BuildRankings
    latest: Mapping[Modality, _Latest]


@dataclass(frozen=True, slots=True)
class Compared:
    """One ranking: how many hits there are in truth, up to k, and how many of them were found."""

    modality: Modality
    num_found: int
    num_wanted: int


@dataclass(slots=True)
class _Latest:
    """The hits found and wanted of the rankings that were compared last."""

    rankings: deque[Compared] = field(default_factory=lambda: deque(maxlen=_NUM_OF_GAUGE))

    def recall(self) -> float:
        return sum(one.num_found for one in self.rankings) / sum(one.num_wanted for one in self.rankings)


def _nothing_known() -> Mapping[Modality, _Latest]:
    return {modality: _Latest() for modality in MODALITIES}


class RecallWatch:
    """Draws queries on the event loop, and compares their answers in a thread that mostly rests."""

    def __init__(
        self,
        metrics: Metrics,
        settings: RecallSettings,
        draw: random.Random | None = None,
        clock: Callable[[], float] = time.thread_time,
    ) -> None:
        """`clock` gives the CPU seconds of the thread that asks it."""
        self._metrics = metrics
        self._settings = settings
        self._draw = draw or random.Random()
        self._waiting: deque[_Sample] = deque(maxlen=_MAX_WAITING)
        self._arrived = asyncio.Event()
        self._latest = _nothing_known()
        self._clock = clock
        self.job = BackgroundJob("recall")

    def offer(self, searcher: Snapshot, build: BuildRankings) -> None:
        """Draw whether this query is compared. It takes less than a microsecond if not.

        `build` returns the rankings that the query asks for. The watch's thread calls it.
        """
        if self._draw.random() * self._settings.every < 1:
            self._waiting.append(_Sample(searcher, build, self._latest))
            self._arrived.set()

    def begin_again(self) -> None:
        """Another index is served: what is known, what waits and what is compared now tells nothing of it."""
        self._waiting.clear()
        self._latest = _nothing_known()

    def watching(self) -> AbstractAsyncContextManager[None]:
        """Compare what is drawn until the context ends."""
        return self.job.running(self._watch_forever())

    async def _watch_forever(self) -> None:
        while True:
            await self._arrived.wait()
            if not self._waiting:
                self._arrived.clear()
                continue
            sample = self._waiting.popleft()
            try:
                compared = await self.job.run(self._compare, sample)
            except CancelledError:  # the service is stopping
                return
            except Exception:
                log.exception("a query could not be compared")  # the next one may be
            else:
                if sample.latest is self._latest:
                    self._count(compared)
            del sample  # or the wait for the next one would keep the searcher, also of a closed index

    def _compare(self, sample: _Sample) -> list[Compared]:
        began = self._clock()
        requests = sample.build()
        self._rest_after(self._clock() - began)
        return [self._compare_one(sample.searcher, request) for request in requests]

    def _compare_one(self, searcher: Snapshot, request: RankingRequest) -> Compared:
        """Answer as before and exactly. Each part rests, so that no request waits for long."""
        k, queries = min(request.num_first_searched, _MAX_K), request.query.searched
        modality, row_filter = request.modality, request.row_filter
        began = self._clock()
        found = searcher.search(queries, k=k, modality=modality, row_filter=row_filter)
        self._rest_after(self._clock() - began)
        exact = searcher.search_exactly(
            queries, k=k, modality=modality, row_filter=row_filter, after_each=self._rest_after
        )
        return _compared(request, best_of_crops(found, k), best_of_crops(exact, k))

    def _rest_after(self, cpu_seconds: float) -> None:
        self.job.pause(cpu_seconds * (1 / self._settings.share - 1))

    def _count(self, rankings: Sequence[Compared]) -> None:
        for one in rankings:
            if one.num_wanted:
                self._metrics.count_recall(one.modality, one.num_found, one.num_wanted)
                latest = self._latest[one.modality]
                latest.rankings.append(one)
                self._metrics.recall_at_k.labels(one.modality).set(latest.recall())


def _compared(request: RankingRequest, found: Sequence[Hit], exact: Sequence[Hit]) -> Compared:
    """Count what the request's least score lets pass. Of equal scores any may be answered."""
    least = -1.0 if request.min_score is None else request.min_score
    wanted = [hit.score for hit in exact if hit.score >= least]
    if not wanted:
        return Compared(request.modality, 0, 0)
    num_good = sum(hit.score >= wanted[-1] - _TIE for hit in found)
    return Compared(request.modality, min(num_good, len(wanted)), len(wanted))


RECALL_WATCH: web.AppKey[RecallWatch | None] = web.AppKey("recall_watch")
