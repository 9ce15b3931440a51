"""The index that this process serves: the newest searcher, and the requests that wait for a newer one."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

import structlog
from opentelemetry.trace import Tracer

from clip_index.errors import ClipIndexError, DamagedFile, IndexMissing, IndexRefused
from query_api.errors import ApiError, ErrorDetail, NoIndex, NotYetCovered
from query_api.serving.engine import GenerationKey, Index, Reader, Snapshot
from query_api.serving.former_searchers import FormerSearchers, generations_of, sorted_generations
from query_api.serving.index_metrics import observe_newcomers, show_generations, show_watermark_ages
from query_api.serving.quick_looks import FULL_LOOK_SECONDS, QuickLooks
from query_api.serving.traced_records import newly_searchable
from query_api.telemetry.metrics import Metrics
from query_api.telemetry.tracing import record_searchable
from service.process.event_loop import go_behind_the_loop

log = structlog.get_logger()
_UNHELD = (
    "make the index root writable for the query service, or keep CLIPTIDE_CONSUMER__RETAIN_FOR_SECONDS above "
    "the longest time without a reload"
)
_MAX_NAMED = 10  # shards that a client names and the index does not have
REQUEST_PATIENCE_SECONDS = 5.0  # for a look at the index, which can hang on a network mount
SHOW_SECONDS = 1.0
STALLED_SECONDS = 120.0  # a look that opens and verifies a large segment may last for a minute
REST_FACTOR, MAX_REST_SECONDS = 29.0, 0.25
"""After a reload the loop rests for 29 times its CPU time, so that reloads take a thirtieth of a processor.

With 60 to 76 commits a second in four shards they took a fifth. Now one reload follows several commits.
Whoever waits for an offset does not wait for the rest.
"""
RETRY_SECONDS = 1.0  # after "refused" and "failed": such causes change slowly

ReloadOutcome: TypeAlias = Literal["reloaded", "unchanged", "missing", "refused", "damaged", "failed"]
_RETRIED_LATER: tuple[ReloadOutcome, ...] = ("refused", "failed")


class ServedIndex:
    """Holds the current searcher. A request takes it once and keeps it until its answer.

    A reload builds the new searcher first, in a thread of its own, and then swaps the
    reference. A reload that fails leaves the old searcher in place.
    """

    def __init__(
        self,
        reader: Reader,
        metrics: Metrics,
        max_wait_seconds: float = 60.0,
        *,
        tracer: Tracer | None = None,
        is_shown: bool = True,
    ) -> None:
        """`is_shown` is false while another index serves: then the metrics show nothing of this one."""
        self._reader = reader
        self._is_shown = is_shown
        self._tracer = tracer
        self._metrics = metrics
        self._max_wait_seconds = max_wait_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reload", initializer=go_behind_the_loop)
        self._quick_looks = QuickLooks(reader)
        self._rest_seconds = 0.0
        self._lock = asyncio.Lock()
        self._num_begun = 0
        self._looking_since: float | None = None
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._patience_seconds = REQUEST_PATIENCE_SECONDS
        self._former = FormerSearchers()
        self.last_failure: str | None = None
        self._last_lease_failure: str | None = None
        self.was_refused = False
        if reader.searcher is not None and is_shown:
            show_generations(metrics, reader.searcher)

    @property
    def searcher(self) -> Snapshot:
        """The newest searcher that could be built, or `NoIndex`."""
        if self._reader.searcher is None:
            raise NoIndex
        return self._reader.searcher

    @property
    def index(self) -> Index:
        """The index that the reader found, or `NoIndex`."""
        if self._reader.index is None:
            raise NoIndex
        return self._reader.index

    @property
    def has_index(self) -> bool:
        return self._reader.index is not None

    @property
    def has_searcher(self) -> bool:
        return self._reader.searcher is not None

    @property
    def is_reloading(self) -> bool:
        """Whether the loop that looks for new generations is alive. It may still hang: `seconds_looking`."""
        return self._task is not None and not self._task.done()

    @property
    def seconds_looking(self) -> float:
        """For how long the present look at the index has lasted; 0 between two looks.

        A look that lasts for minutes hangs: the index's file system does not answer.
        """
        begun = [since for since in (self._looking_since, self._quick_looks.looking_since) if since]
        return time.monotonic() - min(begun) if begun else 0.0

    @asynccontextmanager
    async def reloading(self, interval_seconds: float) -> AsyncIterator[None]:
        """Serve new generations within `interval_seconds` of their commits, until the context ends."""
        self._task = asyncio.create_task(self._reload_forever(interval_seconds), name="reload")
        showing = asyncio.create_task(self._show_forever(), name="index metrics")
        try:
            yield
        finally:
            self._task.cancel()
            showing.cancel()
            self._quick_looks.close()
            await asyncio.wait([self._task, showing])
            self._task = None  # an ended task refers to its loop's frame, and that one to this object
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def reload_for_request(self) -> None:
        """Reload, but do not wait for long; `ApiError` (reload_stopped) if the index does not answer.

        While it does not answer, requests are refused at once, so that they do not pile up.
        """
        if self.seconds_looking > self._patience_seconds:
            raise _no_answer()
        with _patience():
            await asyncio.wait_for(asyncio.shield(self.reload()), self._patience_seconds)

    async def reload(self) -> ReloadOutcome:
        """Serve the newest generations that were committed before this call.

        Calls that come while a reload runs share the next reload.
        """
        num_begun_before = self._num_begun
        async with self._lock:
            if self._num_begun > num_begun_before:
                # A reload that began after this call has finished while we waited for the lock:
                # its result is ours.
                return "unchanged"
            self._num_begun += 1
            before = self._reader.searcher
            outcome = await self._reload_once()
            if self._reader.searcher is not before:  # also after a failure: healthy shards have moved on
                await self._announce(before)
        return outcome

    async def other_searcher(self, than: Snapshot | None) -> Snapshot:
        """Wait until the newest searcher is not `than`, and return it."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._reader.searcher not in (None, than))
        return self.searcher

    async def newer_searcher(self, than: Snapshot, timeout_seconds: float) -> Snapshot:
        """Wait until the newest searcher is not `than`, but not beyond the timeout; return the newest."""
        async with self._changed:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait_for(lambda: self.searcher is not than), timeout_seconds
                )
        return self.searcher

    def keep_for_pages(self, searcher: Snapshot) -> None:
        """Keep a searcher, because a client may ask for the next page of what was found in it."""
        self._former.keep(searcher)

    async def searcher_at(self, generations: Mapping[str, GenerationKey]) -> Snapshot:
        """Return a searcher over just these generations; `GenerationGone` when they are no longer kept."""
        if generations_of(self.searcher) == sorted_generations(generations):
            return self.searcher
        if (former := self._former.find(generations)) is not None:
            return former
        loop = asyncio.get_running_loop()
        opening = loop.run_in_executor(self._thread, self._reader.open_former, generations)
        with _patience():
            searcher = await asyncio.wait_for(opening, self._patience_seconds)
        self._former.keep(searcher)
        return searcher

    def covers(self, min_offsets: Mapping[str, int]) -> bool:
        """Whether the newest searcher covers these offsets; `ApiError` (unknown_partition)."""
        self._refuse_unknown(min_offsets)
        return not missing_offsets(self.searcher, min_offsets)

    async def covered_searcher(self, min_offsets: Mapping[str, int], timeout_seconds: float) -> Snapshot:
        """Return a searcher with `next_offset` ≥ `min_offsets` in each shard named.

        Raises `ApiError` (unknown_partition) at once, `NotYetCovered` after the timeout.
        """
        self._refuse_unknown(min_offsets)
        wait_seconds = min(timeout_seconds, self._max_wait_seconds)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.wait_until_covered(min_offsets), wait_seconds)
        searcher = self.searcher
        if missing := missing_offsets(searcher, min_offsets):
            raise NotYetCovered(missing)
        return searcher

    async def wait_until_covered(self, min_offsets: Mapping[str, int]) -> None:
        """Wait until the newest searcher covers these offsets. All shards must be known."""
        self._quick_looks.num_awaiting += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not missing_offsets(self.searcher, min_offsets))
        finally:
            self._quick_looks.num_awaiting -= 1

    def _refuse_unknown(self, min_offsets: Mapping[str, int]) -> None:
        if unknown := sorted(min_offsets.keys() - self.searcher.shards.keys()):
            unknown = unknown[:_MAX_NAMED]
            details: list[ErrorDetail] = [{"field": f"min_offsets.{name}"} for name in unknown]
            known = ", ".join(sorted(self.searcher.shards))
            message = f"min_offsets: there is no {', '.join(unknown)}; the index has {known}"
            raise ApiError("unknown_partition", message, details=details)

    async def _reload_forever(self, interval_seconds: float) -> None:
        while True:
            outcome = await self.reload()
            if outcome in ("reloaded", "unchanged"):
                await self._quick_looks.wait(interval_seconds, self._rest_seconds)
            else:  # the cause is still there, and so is what a quick look would find
                retry_seconds = RETRY_SECONDS if outcome in _RETRIED_LATER else FULL_LOOK_SECONDS
                await asyncio.sleep(max(retry_seconds, interval_seconds))

    async def _show_forever(self) -> None:
        """Renew the gauges that grow with time. Not in the reload loop: they must grow while it hangs."""
        while True:
            self.show()
            self._former.forget_old()
            await asyncio.sleep(SHOW_SECONDS)

    def show(self) -> None:
        if not self._is_shown:
            return
        is_looking = self.is_reloading and self.seconds_looking < STALLED_SECONDS
        self._metrics.ready.set(self.has_searcher and is_looking)
        self._metrics.seconds_looking.set(self.seconds_looking)
        if self._reader.searcher is not None:
            show_watermark_ages(self._metrics, self._reader.searcher)

    def show_in_place_of(self, former: Snapshot | None) -> None:
        """Let the metrics show this index from now on, and no shard that only the former one has."""
        self._is_shown = True
        show_generations(self._metrics, self.searcher, former)
        self.show()

    def hide(self) -> None:
        """Show nothing of this index in the metrics any more, because another one serves."""
        self._is_shown = False

    async def _reload_once(self) -> ReloadOutcome:
        self._looking_since = time.monotonic()
        self.was_refused = False
        try:
            is_newer = await asyncio.get_running_loop().run_in_executor(self._thread, self._reload)
        except (ClipIndexError, OSError) as error:
            outcome = _outcome_of_failure(error)
            self.was_refused = outcome == "refused"
            self._note_failure(outcome, error)
        else:
            outcome = "reloaded" if is_newer else "unchanged"
            self.last_failure = None
        finally:
            self._looking_since = None
            self._note_lease()
        self._metrics.reloads.labels(outcome).inc()
        return outcome

    def _reload(self) -> bool:
        """Reload, and observe how old the contents are that are new. Blocking."""
        before, began = self._reader.searcher, time.thread_time()
        try:
            return self._reader.reload()
        finally:
            self._rest_seconds = min(REST_FACTOR * (time.thread_time() - began), MAX_REST_SECONDS)
            after = self._reader.searcher
            # What the first searcher holds says nothing about freshness.
            if self._is_shown and before is not None and after is not None and after is not before:
                observe_newcomers(self._metrics, before, after)

    async def _announce(self, before: Snapshot | None) -> None:
        """Publish a new searcher: in the metrics, then to the requests that wait for it."""
        if self._reader.searcher is not None and self._is_shown:
            show_generations(self._metrics, self._reader.searcher, before)
        async with self._changed:
            self._changed.notify_all()
        is_traced = self._is_shown and before is not None
        if (
            self._tracer is not None
            and is_traced
            and before is not None
            and self._reader.searcher is not None
        ):
            await self._trace_newcomers(self._tracer, before, self._reader.searcher)

    async def _trace_newcomers(self, tracer: Tracer, before: Snapshot, searcher: Snapshot) -> None:
        """Add to the traces of sampled records that they are searchable. In the thread that may block."""

        def trace() -> None:
            for record in newly_searchable(self._reader, before, searcher):
                record_searchable(tracer, record)

        await asyncio.get_running_loop().run_in_executor(self._thread, trace)

    def _note_lease(self) -> None:
        """Log when a lease cannot be renewed, and again when the reason changes."""
        failure = self._reader.lease_failure
        if failure is not None and failure != self._last_lease_failure:
            log.warning("served files are not held", reason=failure, way_on=_UNHELD)
        self._last_lease_failure = failure

    def _note_failure(self, outcome: ReloadOutcome, error: Exception) -> None:
        """Log a failure unless the last reload failed in the same way."""
        if str(error) != self.last_failure and outcome != "missing":
            log.error("reload failed", outcome=outcome, error=str(error))
        self.last_failure = str(error)


@contextlib.contextmanager
def _patience() -> Iterator[None]:
    try:
        yield
    except asyncio.TimeoutError:
        raise _no_answer() from None


def _no_answer() -> ApiError:
    message = "the file system of the index does not answer"
    return ApiError("reload_stopped", message, headers={"Retry-After": "5"})


def missing_offsets(searcher: Snapshot, min_offsets: Mapping[str, int]) -> list[ErrorDetail]:
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
