"""The index as this process serves it: the newest searcher, and who waits for a newer one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

import structlog

from clip_index.errors import ClipIndexError, DamagedFile, IndexMissing, IndexRefused
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.manifest import GenerationKey
from clip_index.reading.index_reader import IndexReader
from clip_index.reading.searcher import Searcher
from query_api.errors import ApiError, ErrorDetail, NoIndex, NotYetCovered
from query_api.telemetry.metrics import Metrics

log = structlog.get_logger()
RETRY_SECONDS = 1.0  # a directory that cannot be read, or is another encoder's, changes slowly

MAX_FORMER_SEARCHERS = 8  # beside the newest; each may keep merged segments mapped

Generations: TypeAlias = tuple[tuple[str, GenerationKey], ...]
ReloadOutcome: TypeAlias = Literal["reloaded", "unchanged", "missing", "refused", "damaged", "failed"]
_RETRIED_LATER: tuple[ReloadOutcome, ...] = ("refused", "failed")


class ServedIndex:
    """Holds the current searcher; a request takes it once and keeps it.

    A reload builds the new searcher first, in a thread of its own, and then swaps the
    reference. A reload that fails leaves the old searcher in place.
    """

    def __init__(self, reader: IndexReader, metrics: Metrics, max_wait_seconds: float = 60.0) -> None:
        self._reader = reader
        self._metrics = metrics
        self._max_wait_seconds = max_wait_seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reload")
        self._lock = asyncio.Lock()
        self._num_begun = 0
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._former: OrderedDict[Generations, Searcher] = OrderedDict()
        self.last_failure: str | None = None
        self._publish_gauges()

    @property
    def searcher(self) -> Searcher:
        """The newest searcher that could be built, or `NoIndex`."""
        if self._reader.searcher is None:
            raise NoIndex
        return self._reader.searcher

    @property
    def directory(self) -> IndexDirectory:
        if self._reader.index is None:
            raise NoIndex
        return self._reader.index

    @property
    def has_searcher(self) -> bool:
        return self._reader.searcher is not None

    @property
    def is_reloading(self) -> bool:
        """Whether the loop that looks for new generations is alive."""
        return self._task is not None and not self._task.done()

    @asynccontextmanager
    async def reloading(self, interval_seconds: float) -> AsyncIterator[None]:
        """Look for new generations every `interval_seconds` until the context ends."""
        self._task = asyncio.create_task(self._reload_forever(interval_seconds), name="reload")
        try:
            yield
        finally:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def reload(self) -> ReloadOutcome:
        """Serve the newest generations that were committed before this call.

        Calls that come while a reload runs share the next one.
        """
        ticket = self._num_begun
        async with self._lock:
            if self._num_begun > ticket:  # one began after this call, and the lock says it is done
                return "unchanged"
            self._num_begun += 1
            before = self._reader.searcher
            outcome = await self._reload_once()
            if self._reader.searcher is not before:  # also after a failure: healthy shards have moved on
                self._observe_freshness(before)
                await self._announce()
        return outcome

    async def other_searcher(self, than: Searcher | None) -> Searcher:
        """Return the newest searcher as soon as there is one, and it is another."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._reader.searcher not in (None, than))
        return self.searcher

    async def newer_searcher(self, than: Searcher, timeout_seconds: float) -> Searcher:
        """Return another searcher as soon as there is one; after the timeout the newest, whichever it is."""
        async with self._changed:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self.searcher is not than), timeout_seconds
                )
        return self.searcher

    def keep_for_pages(self, searcher: Searcher) -> None:
        """Somebody may ask for the next page of this very searcher."""
        self._former[generations_of(searcher)] = searcher
        self._former.move_to_end(generations_of(searcher))
        while len(self._former) > MAX_FORMER_SEARCHERS:
            self._former.popitem(last=False)

    async def searcher_at(self, generations: Mapping[str, GenerationKey]) -> Searcher:
        """Return a searcher over just these generations; `GenerationGone` when they are no longer kept."""
        wanted = tuple(sorted(generations.items()))
        if generations_of(self.searcher) == wanted:
            return self.searcher
        if (former := self._former.get(wanted)) is not None:
            return former
        loop = asyncio.get_running_loop()
        searcher = await loop.run_in_executor(self._thread, self._reader.open_former, generations)
        self.keep_for_pages(searcher)
        return searcher

    def covers(self, min_offsets: Mapping[str, int]) -> bool:
        """Whether the newest searcher does; `ApiError` (unknown_partition)."""
        self._refuse_unknown(min_offsets)
        return not missing_offsets(self.searcher, min_offsets)

    async def covered_searcher(self, min_offsets: Mapping[str, int], timeout_seconds: float) -> Searcher:
        """Return a searcher with `next_offset` ≥ `min_offsets` in each shard named.

        Raises `ApiError` (unknown_partition) at once, `NotYetCovered` after the timeout.
        """
        self._refuse_unknown(min_offsets)
        wait_seconds = min(timeout_seconds, self._max_wait_seconds)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wait_until_covered(min_offsets), wait_seconds)
        searcher = self.searcher
        if missing := missing_offsets(searcher, min_offsets):
            raise NotYetCovered(missing)
        return searcher

    async def _wait_until_covered(self, min_offsets: Mapping[str, int]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: not missing_offsets(self.searcher, min_offsets))

    def _refresh_ages(self) -> None:
        """Bring the gauges that change with time up to date."""
        self._metrics.ready.set(self.has_searcher and self.is_reloading)
        if self._reader.searcher is None:
            return
        for name, shard in self._reader.searcher.shards.items():
            if shard.watermark_ms is not None:
                age = max(0.0, time.time() - shard.watermark_ms / 1000)
                self._metrics.watermark_age_seconds.labels(name).set(age)

    def _refuse_unknown(self, min_offsets: Mapping[str, int]) -> None:
        if unknown := sorted(min_offsets.keys() - self.searcher.shards.keys()):
            details: list[ErrorDetail] = [{"field": f"min_offsets.{name}"} for name in unknown]
            known = ", ".join(sorted(self.searcher.shards))
            message = f"min_offsets: there is no {', '.join(unknown)}; the index has {known}"
            raise ApiError("unknown_partition", message, details=details)

    async def _reload_forever(self, interval_seconds: float) -> None:
        while True:
            outcome = await self.reload()
            self._refresh_ages()
            await asyncio.sleep(RETRY_SECONDS if outcome in _RETRIED_LATER else interval_seconds)

    async def _reload_once(self) -> ReloadOutcome:
        try:
            is_newer = await asyncio.get_running_loop().run_in_executor(self._thread, self._reader.reload)
        except (ClipIndexError, OSError) as error:
            outcome = _outcome_of_failure(error)
            self._note_failure(outcome, error)
        else:
            outcome = "reloaded" if is_newer else "unchanged"
            self.last_failure = None
        self._metrics.reloads.labels(outcome).inc()
        return outcome

    def _observe_freshness(self, before: Searcher | None) -> None:
        """What was there at the start says nothing about how fresh uploads are."""
        if before is None or self._reader.searcher is None:
            return
        now_ms = time.time() * 1000
        for occurred_at_ms in self._reader.searcher.newcomers_since(before):
            self._metrics.searchable_after_event.observe(max(0.0, (now_ms - occurred_at_ms) / 1000))

    async def _announce(self) -> None:
        self._publish_gauges()
        async with self._changed:
            self._changed.notify_all()

    def _note_failure(self, outcome: ReloadOutcome, error: Exception) -> None:
        if str(error) != self.last_failure and outcome != "missing":
            log.error("reload failed", outcome=outcome, error=str(error))
        self.last_failure = str(error)

    def _publish_gauges(self) -> None:
        if self._reader.searcher is None:
            return
        for name, shard in self._reader.searcher.shards.items():
            self._metrics.searcher_generation.labels(name).set(shard.generation)
            self._metrics.searcher_next_offset.labels(name).set(shard.next_offset)


def generations_of(searcher: Searcher) -> Generations:
    return tuple(sorted((name, shard.key) for name, shard in searcher.shards.items()))


def missing_offsets(searcher: Searcher, min_offsets: Mapping[str, int]) -> list[ErrorDetail]:
    """Name the shards whose `next_offset` is below the demanded one."""
    return [
        {"shard": name, "required_next_offset": required, "next_offset": searcher.shards[name].next_offset}
        for name, required in min_offsets.items()
        if searcher.shards[name].next_offset < required
    ]


def _outcome_of_failure(error: Exception) -> ReloadOutcome:
    if isinstance(error, IndexMissing):
        return "missing"
    if isinstance(error, DamagedFile):
        return "damaged"
    return "refused" if isinstance(error, IndexRefused) else "failed"
