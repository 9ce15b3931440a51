"""Follows the pointer of the index root: opens the index that it names beside the served one, and swaps.

A request holds one pair of index and encoder until its answer, so no answer mixes two models.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import structlog
from aiohttp import web

from clip_index.errors import ClipIndexError, EncoderBroken, IndexRefused
from query_api.percentiles.renewal import PercentileScales
from query_api.serving.engine import IndexDescription, Snapshot
from query_api.swap.candidates import Candidates, NamedIndex, OpenedIndex
from query_api.swap.served_pair import RunningEncoder, ServedPair, SharedParts
from query_api.telemetry.metrics import Metrics
from service.process.freed_memory import return_freed_memory

log = structlog.get_logger()
_T = TypeVar("_T")
LOOK_SECONDS = 1.0
MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 10.0, 300.0
SCALES_SECONDS = 1800.0  # for the percentiles: on a large index their searches pause a lot
CATCH_UP_SECONDS = 10.0  # for the new index to hold what the served one holds; after a rollback it may not


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the named index is not served, and when that is tried again."""

    named: NamedIndex
    reason: str
    num_failures: int
    retry_at: float


class IndexSwap:
    """Holds the pair that serves. Used by the event loop's thread alone, except for what blocks."""

    def __init__(
        self,
        first: ServedPair,
        shared: SharedParts,
        candidates: Candidates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without `candidates` the service serves one index for its whole life."""
        self.pair = first
        self.catch_up_seconds = CATCH_UP_SECONDS
        self.when_swapped: Callable[[], None] | None = None
        self._shared = shared
        self._metrics: Metrics = shared.metrics
        self._candidates = candidates
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=2, thread_name_prefix="index swap")
        self._live: list[ServedPair] = [first]
        self._retiring: set[asyncio.Task[None]] = set()
        self._preparing: str | None = None
        self._failure: Failure | None = None
        self._pointer_trouble: str | None = None
        self._shown: tuple[str, str] | None = None
        self.former_descriptions: Sequence[IndexDescription] = ()

    @property
    def follows_pointer(self) -> bool:
        return self._candidates is not None

    @property
    def served_id(self) -> str | None:
        """The id of the index that is served; None until there is one."""
        return self.pair.index.index.index_id if self.pair.index.has_index else None

    @property
    def preparing_id(self) -> str | None:
        """The id of the index that is being opened beside the served one."""
        return self._preparing

    @property
    def problems(self) -> list[str]:
        """Say what keeps the service from serving the index that it is to serve. It names no path."""
        if self._failure is not None:
            named, served = self._failure.named.index_id, self.served_id
            return [f"index {named} is to be served, and cannot be: the log says why; {served} is served"]
        return [self._pointer_trouble] if self._pointer_trouble else []

    def failure_of(self, index_id: str) -> str | None:
        """Return why this index, which is to be served, could not be prepared."""
        failure = self._failure
        return failure.reason if failure is not None and failure.named.index_id == index_id else None

    def held(self) -> AbstractContextManager[ServedPair]:
        """Hold the pair that serves now, until the end of the block."""
        return self.pair.held()

    def refusal(self, index_id: str) -> str | None:
        """Say why an index could not be served beside the present one; None if it could. Blocking."""
        if self._candidates is None:
            return "the service serves one index for its whole life: CLIPTIDE_INDEX__ID names it"
        return self._candidates.refusal(index_id, self.pair.encoder.fingerprint)

    def show(self) -> None:
        """Renew the gauges that grow with time, and those of the pair."""
        self.pair.index.show()
        self._show_index()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve the first pair and follow the pointer until the context ends."""
        await self.pair.start()
        await self.pair.begin_serving()
        self._show_index()
        following = asyncio.create_task(self._follow_forever(), name="index swap")
        try:
            yield
        finally:
            await _end(following, *self._retiring)
            for pair in reversed(self._live):
                await pair.close()
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _follow_forever(self) -> None:
        if self._candidates is None:
            return
        await self._read_former(self._candidates)
        while True:
            try:
                await self.look(self._candidates)
            except Exception:  # the loop must go on: it is the only way to another index
                log.exception("the named index was not looked at")
            await asyncio.sleep(max(LOOK_SECONDS, self._candidates.look_every_seconds))

    async def look(self, candidates: Candidates) -> None:
        """Compare the index that is named with the one that is served, and swap if they differ."""
        try:
            named = await self._call(candidates.named)
        except (ClipIndexError, OSError) as error:
            self._note_pointer_trouble(str(error))
            return
        self._pointer_trouble = None
        self._show_index()
        if named is None or named.index_id == self.served_id:
            self._failure = None
        elif self._may_try(named):
            await self._swap_to(named, candidates)

    def _may_try(self, named: NamedIndex) -> bool:
        """Wait after a failure, and for the first index, which the reader itself opens if its model fits."""
        failure = self._failure
        if failure is not None and failure.named == named and self._clock() < failure.retry_at:
            return False
        return self.pair.index.has_index or self.pair.index.was_refused

    async def _swap_to(self, named: NamedIndex, candidates: Candidates) -> None:
        log.info("preparing another index", index=named.index_id, served=self.served_id)
        self._preparing = named.index_id
        began = self._clock()
        try:
            pair = await self._prepare_while_named(named, candidates)
        except (ClipIndexError, OSError) as error:
            self._fail(named, str(error))
        except Exception as error:  # torch has errors of its own for a device without room
            log.exception("another index was not prepared", index=named.index_id)
            self._fail(named, f"{type(error).__name__}: {error}")
        else:
            if pair is not None:
                await self._swap(pair)
                seconds = round(self._clock() - began, 1)
                log.info("serving another index", index=named.index_id, seconds=seconds)
                await self._read_former(candidates)
        finally:
            self._preparing = None

    async def _prepare_while_named(self, named: NamedIndex, candidates: Candidates) -> ServedPair | None:
        """Prepare the index; None if another one is named meanwhile, because of a rollback perhaps."""
        preparing = asyncio.create_task(self._prepare(named.index_id, candidates), name="prepare an index")
        try:
            while True:
                await asyncio.wait([preparing], timeout=max(LOOK_SECONDS, candidates.look_every_seconds))
                if not await self._is_named(named, candidates):
                    log.info("another index is named meanwhile", prepared=named.index_id)
                    await self._drop(preparing)
                    return None
                if preparing.done():
                    return preparing.result()
        except asyncio.CancelledError:
            await self._drop(preparing)
            raise
        finally:
            # its error refers to this frame, and would keep the pair that could not be prepared
            del preparing

    async def _is_named(self, named: NamedIndex, candidates: Candidates) -> bool:
        """Whether the index is still the named one. While nobody can tell, it is."""
        with suppress(ClipIndexError, OSError):
            return await self._call(candidates.named) == named
        return True

    async def _drop(self, preparing: asyncio.Task[ServedPair]) -> None:
        """End a preparation, and leave nothing of it."""
        preparing.cancel()
        [pair] = await asyncio.gather(preparing, return_exceptions=True)
        if isinstance(pair, ServedPair):
            self._live.remove(pair)
            await pair.close()

    def _fail(self, named: NamedIndex, reason: str) -> None:
        former = self._failure
        num_failures = former.num_failures + 1 if former is not None and former.named == named else 1
        pause = min(MAX_RETRY_SECONDS, MIN_RETRY_SECONDS * 2 ** (num_failures - 1))
        self._metrics.index_swaps.labels("failed").inc()
        if former is None or former.reason != reason:
            log.error("not swapped", index=named.index_id, served=self.served_id, error=reason)
        self._failure = Failure(named, reason, num_failures, self._clock() + pause)

    async def _prepare(self, index_id: str, candidates: Candidates) -> ServedPair:
        """Open the index and its encoder, and warm up both. On an error nothing of them is left.

        Step 1 loads the encoder and opens the index. Step 2 tries the encoder. Step 3 builds the scales of
        the percentiles. Step 4 waits until the index holds what the served one holds.
        """
        running = self.pair.running_encoder
        opened: OpenedIndex = await self._call(candidates.open, index_id, running.queries.fingerprint)
        encoder = running if opened.encoder is None else RunningEncoder(opened.encoder, self._shared)
        pair = ServedPair(encoder, opened.reader, self._shared, is_first=False)  # Step 1
        self._live.append(pair)
        try:
            await pair.start()
            await self._warm_up(pair)
        except BaseException:
            self._live.remove(pair)
            await pair.close()
            raise
        return pair

    async def _warm_up(self, pair: ServedPair) -> None:
        if (complaint := await pair.canary.complaint()) is not None:  # Step 2
            raise EncoderBroken(complaint)
        kept = await self._call(pair.index.index.read_canaries)
        if kept is not None and (complaint := await pair.drift.complaint_of(kept)) is not None:
            raise EncoderBroken(complaint)
        if pair.scales is not None:
            await self._build_scales(pair.scales)  # Step 3
        if self.pair.index.has_searcher:
            offsets = {name: shard.next_offset for name, shard in self.pair.index.searcher.shards.items()}
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(
                    pair.index.wait_until_covered(offsets), self.catch_up_seconds
                )  # Step 4

    async def _build_scales(self, scales: PercentileScales) -> None:
        try:
            await asyncio.wait_for(scales.built(), SCALES_SECONDS)
        except asyncio.TimeoutError:
            message = f"its percentiles were not built within {SCALES_SECONDS:.0f} s: the log says why"
            raise IndexRefused(message) from None

    async def _swap(self, pair: ServedPair) -> None:
        """Let the pair answer every request that begins from now on."""
        await pair.begin_serving()
        if self.pair.index.has_index:  # its cursors are stale from the first request on
            self.former_descriptions = [*self.former_descriptions, self.pair.index.index.description]
        former, self.pair = self.pair, pair
        former.end_serving()
        if self.when_swapped is not None:
            self.when_swapped()
        pair.index.show_in_place_of(_searcher_of(former))
        self._show_index()
        self._failure = None
        self._metrics.index_swaps.labels("swapped").inc()
        retiring = asyncio.create_task(self._retire(former), name="retire an index")
        self._retiring.add(retiring)
        retiring.add_done_callback(self._retiring.discard)

    async def _retire(self, former: ServedPair) -> None:
        """Close a pair after the last request that holds it. That frees its encoder and its files.

        Nothing may refer to the pair in a circle, because Python looks for circles seldom, and what was
        loaded at the start it never looks at (`freeze_gc`).
        """
        await former.released()
        self._live.remove(former)
        await former.close()
        log.info("the former index is closed", index=_id_of(former))
        del former
        await self._call(return_freed_memory)

    async def _read_former(self, candidates: Candidates) -> None:
        with suppress(OSError):
            self.former_descriptions = await self._call(candidates.former_descriptions)

    def _note_pointer_trouble(self, reason: str) -> None:
        message = "the file that names the index to serve cannot be read: the log says why"
        if self._pointer_trouble is None:
            log.error("the named index cannot be read", error=reason)
        self._pointer_trouble = message

    def _show_index(self) -> None:
        labels = _labels_of(self.pair)
        if labels is not None and labels != self._shown:
            if self._shown is not None:
                self._metrics.forget_index(*self._shown)
            self._metrics.index_info.labels(*labels).set(1)
            self._shown = labels

    async def _call(self, call: Callable[..., _T], *arguments: object) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)


INDEX_SWAP = web.AppKey("index_swap", IndexSwap)


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _searcher_of(pair: ServedPair) -> Snapshot | None:
    return pair.index.searcher if pair.index.has_searcher else None


def _id_of(pair: ServedPair) -> str | None:
    return pair.index.index.index_id if pair.index.has_index else None


def _labels_of(pair: ServedPair) -> tuple[str, str] | None:
    """Return the id of the index and its model, as the metrics name them."""
    if not pair.index.has_index:
        return None
    index = pair.index.index
    return index.index_id, str(index.description.fingerprint.short)
