"""Plain searches that come while others run are made together, which costs far less than one by one."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeAlias

from aiohttp import web

from query_api.search.quick_searches import QuickSearches
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.request.options import RatedOptions
from query_api.search.retrieval import SharedSearch, search, search_batch, search_each
from query_api.serving.engine import Snapshot
from query_api.serving.futures import settle_each
from query_api.serving.workers import Workers
from query_api.telemetry.stages import Stages

MAX_TOGETHER = 16
MAX_K = 100
SHORT_SECONDS = 0.001
"""About the CPU time that a search must take so that a second thread gains more than it costs the first."""

_SHORT_TIMES = 10  # a search that takes so many times the seconds of a short one waits for a disk
PATIENCE_SECONDS = 0.1  # a call of `MAX_TOGETHER` short searches takes a sixth of it

_Waiting: TypeAlias = tuple[Snapshot, SharedSearch, "asyncio.Future[bytes]"]


class SharedSearches:
    """Makes searches in the workers, in at most `max_at_once` calls at a time.

    While fewer calls run, a search starts at once. Otherwise it waits until a call ends. Then the
    waiting searches are divided among the calls, up to `MAX_TOGETHER` of one searcher in each call.
    A search or a batch that is alone and `quick` is made on the event loop.

    While searches take less than `short_seconds` of CPU time each, one call fewer runs. The event loop
    then has a core for itself. It and the threads of more calls would spend their time handing the GIL to
    each other: on two cores, with 16 clients, a query takes a sixth less CPU time in one call at a time.
    That holds only for calls that do not wait for a disk. So a call that runs for longer than
    `patience_seconds` lets another one start: it may hang, and must not keep all searches waiting.
    """

    def __init__(
        self,
        workers: Workers,
        max_at_once: int,
        quick: QuickSearches | None = None,
        short_seconds: float = SHORT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._workers = workers
        self._quick = quick
        self._max_at_once = max_at_once
        self._short_seconds = short_seconds
        self._patience_seconds = patience_seconds
        self._are_short = False  # the searches of the call that ended last
        self._running: dict[object, float] = {}  # since when each call runs
        self._waiting: deque[_Waiting] = deque()
        self._is_looking = False

    async def search(
        self, searcher: Snapshot, query: QueryEmbedding, options: RatedOptions, stages: Stages
    ) -> bytes:
        """Return the answer as JSON, the same that the search would give alone."""
        if self._quick is not None and await self._quick.may_run(searcher, [(query, options)]):
            answer = search(searcher, query, options, stages)
            self._quick.note(searcher, stages)
            return answer
        if not self._waiting and len(self._running) < self._num_allowed:
            return await self._search_at_once(searcher, query, options, stages)
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting.append((searcher, SharedSearch(query, options, stages), future))
        self._start()
        self._look_later()
        return await future

    @property
    def _num_allowed(self) -> int:
        """How many calls may run now."""
        return max(1, self._max_at_once - (self._are_short and not self._has_long_call))

    @property
    def _has_long_call(self) -> bool:
        latest = time.monotonic() - self._patience_seconds
        return any(began <= latest for began in self._running.values())

    def _look_later(self) -> None:
        """Look again whether a call may start: no call may end until then."""
        if self._waiting and not self._is_looking:
            self._is_looking = True
            asyncio.get_running_loop().call_later(self._patience_seconds, self._look)

    def _look(self) -> None:
        self._is_looking = False
        self._start()
        self._look_later()

    def _begin(self) -> object:
        call = object()
        self._running[call] = time.monotonic()
        return call

    async def _search_at_once(
        self, searcher: Snapshot, query: QueryEmbedding, options: RatedOptions, stages: Stages
    ) -> bytes:
        running = self._begin()
        try:
            answer = await self._workers.run(self._search_alone, searcher, query, options, stages)
        finally:
            del self._running[running]
            self._start()
        if self._quick is not None:
            self._quick.note(searcher, stages)
        return answer

    def _search_alone(
        self, searcher: Snapshot, query: QueryEmbedding, options: RatedOptions, stages: Stages
    ) -> bytes:
        with self._timing(1):
            return search(searcher, query, options, stages)

    def _search_each(self, searcher: Snapshot, searches: Sequence[SharedSearch]) -> list[bytes | Exception]:
        with self._timing(len(searches)):
            return search_each(searcher, searches)

    @contextmanager
    def _timing(self, num_searches: int) -> Iterator[None]:
        """Remember whether the searches of a call are short."""
        began, began_work = time.monotonic(), time.thread_time()
        yield
        work = (time.thread_time() - began_work) / num_searches
        seconds = (time.monotonic() - began) / num_searches
        self._are_short = work < self._short_seconds and seconds < _SHORT_TIMES * self._short_seconds

    async def search_batch(
        self, searcher: Snapshot, queries: Sequence[tuple[QueryEmbedding, RatedOptions]], stages: Stages
    ) -> bytes:
        """Answer the queries of one request, as JSON. They are together already, so they share no call."""
        quick = self._quick if all(can_share(options, stages) for _, options in queries) else None
        if quick is not None and await quick.may_run(searcher, queries):
            answer = search_batch(searcher, queries, stages)
        else:
            answer = await self._workers.run(search_batch, searcher, queries, stages)
        if quick is not None:
            quick.note(searcher, stages, len(queries))
        return answer

    def _start(self) -> None:
        while len(self._running) < self._num_allowed and (taken := self._take()):
            running = self._begin()
            searcher, searches = taken[0][0], [one for _, one, _ in taken]
            call = self._workers.run(self._search_each, searcher, searches)
            call.add_done_callback(partial(self._end, running, [future for _, _, future in taken]))

    def _take(self) -> list[_Waiting]:
        """Take one call's part of the waiting searches, so that the other calls get as many."""
        size = min(MAX_TOGETHER, math.ceil(len(self._waiting) / self._num_allowed))
        taken: list[_Waiting] = []
        while self._waiting and len(taken) < size:
            searcher, _, future = self._waiting[0]
            if taken and searcher is not taken[0][0]:
                break
            first = self._waiting.popleft()
            if not future.done():  # it is done if its request went away
                taken.append(first)
        return taken

    def _end(
        self,
        running: object,
        futures: Sequence[asyncio.Future[bytes]],
        call: asyncio.Future[list[bytes | Exception]],
    ) -> None:
        del self._running[running]
        self._start()
        failure = call.exception()
        settle_each(futures, call.result() if failure is None else [failure] * len(futures))


SHARED_SEARCHES = web.AppKey("shared_searches", SharedSearches)


def can_share(options: RatedOptions, stages: Stages) -> bool:
    """Whether a search is plain: it takes about as long as others, so that none waits for a long one.

    A traced search is made alone, because the times of its shards must be its own.
    """
    is_plain = options.filter is None and not options.collapse_identical and options.k <= MAX_K
    return is_plain and stages.search_observer is None
