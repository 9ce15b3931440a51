"""Fetches contents that upload events only refer to.

A reference must be allowed, its size and time are bounded, and its digest is checked. All fetches
run on one event loop in a thread of its own. Callers get futures.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from consumer.backoff import Backoff
from consumer.references.checking import ReceivedBytes
from consumer.references.failures import FailureLog
from consumer.references.policy import (
    ReferenceAbsent,
    ReferencePatience,
    ReferencePolicy,
    ReferenceRefused,
    ReferenceUnreachable,
    ReferenceWithheld,
    StoreKind,
)
from consumer.references.signed_objects import open_bucket_session
from consumer.references.stores import BucketStore, FileStore, ReferenceStore, open_http_store
from consumer.turns import Turns
from schemas.events import ContentReference

_log = structlog.get_logger(__name__)
_TURN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """At most `max_concurrent` contents are being fetched or waiting to be taken.

    `timeout_seconds` bounds one attempt, from its start to the checked digest.
    """

    max_concurrent: int = 16
    timeout_seconds: float = 30.0
    patience: ReferencePatience = field(default_factory=ReferencePatience)
    backoff: Backoff = field(default_factory=lambda: Backoff(first_seconds=0.5, longest_seconds=30.0))


class ReferenceGivenUp(Exception):
    """The reference is not tried again, and its record becomes a dead letter with this reason code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Fetch(Future[bytes]):
    """The bytes of one reference, or `ReferenceGivenUp`.

    A fetch that is done keeps its slot among `max_concurrent` until `cancel` is called. The caller
    must do that when it has taken the bytes, or no longer wants them. So the bytes of at most
    `max_concurrent` references are in memory.
    """

    delivering: Future[None]

    def cancel(self) -> bool:
        self.delivering.cancel()
        return super().cancel()


class FailingGauge(Protocol):
    """Is told how many references are being tried again."""

    def set(self, value: float) -> None: ...


class References:
    """Tries each reference until it is fetched, refused or given up. Thread-safe after `start`."""

    def __init__(
        self,
        policy: ReferencePolicy,
        limits: FetchLimits,
        *,
        failing: FailingGauge,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._failing = failing
        self._num_failing = 0
        self._failures = FailureLog(clock)
        self._last_success_at: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: Future[None] = Future()
        self._turns = Turns()
        self._thread = threading.Thread(target=self._run, name="references", daemon=True)

    def start(self) -> None:
        """Start the loop, or raise what keeps it from starting."""
        self._thread.start()
        self._started.result()

    def fetch(self, reference: ContentReference, record: str = "") -> Future[bytes]:
        """Return a `Fetch`. The caller cancels it, also after taking its bytes.

        `record` says in the log whose reference it is.
        """
        if self._loop is None:
            raise RuntimeError("references are not started")
        fetch = Fetch()
        fetch.delivering = asyncio.run_coroutine_threadsafe(
            self._deliver(reference, fetch, record), self._loop
        )
        return fetch

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    @property
    def seconds_since_turn(self) -> float:
        """How long ago the event loop last turned, which it does each second."""
        return self._turns.seconds_since

    def close(self, timeout_seconds: float) -> None:
        """Stop the loop and cancel what is being fetched. Do not wait longer, even if a disk hangs."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._loop is not None:
                raise
            self._started.set_exception(error)

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._slots = asyncio.Semaphore(self._limits.max_concurrent)
        timeout_seconds = self._limits.timeout_seconds
        async with open_http_store(timeout_seconds) as http, open_bucket_session(timeout_seconds) as buckets:
            self._stores: Mapping[StoreKind, ReferenceStore] = {
                "http": http,
                "bucket": BucketStore(buckets, timeout_seconds),
                "file": FileStore(self._policy),
            }
            self._loop = asyncio.get_running_loop()
            self._started.set_result(None)
            await self._turn_until_stopped()
            await _cancel_all_others()

    async def _turn_until_stopped(self) -> None:
        while not self._stopping.is_set():
            self._turns.mark()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _TURN_SECONDS)

    async def _deliver(self, reference: ContentReference, fetch: Fetch, record: str) -> None:
        """Deliver the bytes and then hold their slot, until `Fetch.cancel` ends the waiting."""
        try:
            data = await self._persist(reference, record)
        except Exception as error:  # noqa: BLE001 - asking the fetch for its bytes raises it
            if fetch.set_running_or_notify_cancel():
                fetch.set_exception(error)
            return
        try:
            if fetch.set_running_or_notify_cancel():
                fetch.set_result(data)
                await asyncio.Event().wait()
        finally:
            self._slots.release()

    async def _persist(self, reference: ContentReference, record: str) -> bytes:
        """Try until the bytes are there. They come with a slot; while a retry waits, it holds none."""
        failing_since: dict[type[Exception], float] = {}
        num_failures = 0
        try:
            while True:
                try:
                    return await self._attempt_or_wait(reference)
                except ReferenceRefused as error:
                    raise ReferenceGivenUp(error.reason, str(error)) from error
                except (ReferenceAbsent, ReferenceUnreachable) as error:
                    now = self._clock()
                    if not failing_since:
                        self._count_failing(+1)
                    num_failures += 1
                    self._give_up_when_over(error, failing_since.setdefault(type(error), now), now)
                    self._failures.tell(reference.uri, record, error, self._num_failing)
                await asyncio.sleep(self._limits.backoff.seconds(num_failures))
        finally:
            if failing_since:
                self._count_failing(-1)

    def _give_up_when_over(
        self, error: ReferenceAbsent | ReferenceUnreachable, failing_since: float, now: float
    ) -> None:
        is_over = self._limits.patience.is_over(
            error, failing_since=failing_since, other_success_at=self._last_success_at, now=now
        )
        if is_over:
            reason = error.reason if isinstance(error, ReferenceAbsent) else "reference_unreachable"
            raise ReferenceGivenUp(reason, str(error)) from error

    def _count_failing(self, change: int) -> None:
        self._num_failing += change
        self._failing.set(self._num_failing)

    async def _attempt_or_wait(self, reference: ContentReference) -> bytes:
        """Attempt once. An error that no rule expects is logged and tried again, like an outage."""
        try:
            return await self._attempt(reference)
        except (ReferenceRefused, ReferenceAbsent, ReferenceUnreachable):
            raise
        except Exception as error:
            _log.exception("fetching a reference failed unexpectedly")
            raise ReferenceUnreachable(f"unexpected {type(error).__name__}") from error

    async def _attempt(self, reference: ContentReference) -> bytes:
        """Fetch once. On success a slot stays acquired, which the caller releases."""
        kind = self._policy.admit(reference.uri, reference.size_bytes)
        await self._slots.acquire()
        try:
            data = await self._read_in_time(kind, reference)
        except BaseException:
            self._slots.release()
            raise
        self._last_success_at = self._clock()
        return data

    async def _read_in_time(self, kind: StoreKind, reference: ContentReference) -> bytes:
        seconds = self._limits.timeout_seconds
        answered = asyncio.Event()
        try:
            received = ReceivedBytes(reference, self._policy)
            reading = _read_checked(self._stores[kind], reference, received, answered)
            return await asyncio.wait_for(reading, seconds)
        except asyncio.TimeoutError as error:
            failure = ReferenceWithheld if answered.is_set() else ReferenceUnreachable
            raise failure(f"no complete answer within {seconds} seconds") from error


async def _read_checked(
    store: ReferenceStore, reference: ContentReference, received: ReceivedBytes, answered: asyncio.Event
) -> bytes:
    """Read and check the bytes. `answered` is set as soon as the store has answered."""
    async with aclosing(store.stream(reference.uri, reference.etag)) as stream:
        async for chunk in stream:
            answered.set()
            received.add(chunk)
    return received.finish()


async def _cancel_all_others() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
