"""An index and the encoder of its model: what a request is answered with, from its beginning to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.trace import Tracer

from clip_index.encoder.protocol import Encoder
from query_api.encoding.canary_probe import CanaryProbe
from query_api.encoding.encoder_drift import EncoderDrift
from query_api.encoding.query_encoder import QueryEncoder, QueryEncoderSettings
from query_api.percentiles.renewal import BEFORE_SERVING, WHILE_SERVING, PercentileScales
from query_api.serving.background_job import BackgroundJobs
from query_api.serving.engine import Reader
from query_api.serving.scrub import Scrub
from query_api.serving.served_index import ServedIndex
from query_api.serving.workers import Workers
from query_api.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class PairSettings:
    """How an index is followed and its encoder is used. Without `scrub_seconds` no file is read again."""

    query_encoder: QueryEncoderSettings = field(default_factory=QueryEncoderSettings)
    reload_interval_seconds: float = 0.01
    max_wait_seconds: float = 60.0
    has_percentiles: bool = True
    scrub_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class SharedParts:
    """What the pairs of one process share."""

    workers: Workers
    metrics: Metrics
    jobs: BackgroundJobs
    settings: PairSettings
    tracer: Tracer | None = None


class RunningEncoder:
    """An encoder as requests use it, with its canary. Pairs of the same model share it."""

    def __init__(self, encoder: Encoder, shared: SharedParts) -> None:
        settings = shared.settings.query_encoder
        self.queries = QueryEncoder(encoder, shared.workers, shared.metrics, settings)
        self.canary = CanaryProbe(self.queries)
        self._running = AsyncExitStack()
        self._num_users = 0

    async def start(self) -> None:
        self._num_users += 1
        if self._num_users == 1:
            await self._running.enter_async_context(self.queries.running())

    async def stop(self) -> None:
        self._num_users -= 1
        if not self._num_users:
            await self._running.aclose()


class ServedPair:
    """An index and its encoder, with what is computed from both.

    `start` lets it follow its index and build its percentile scales. `begin_serving` makes it the one that
    the metrics show. Requests hold it, and `close` may be called as soon as `released` returns.
    """

    def __init__(
        self, encoder: RunningEncoder, reader: Reader, shared: SharedParts, *, is_first: bool = True
    ) -> None:
        settings = shared.settings
        self.index = ServedIndex(
            reader, shared.metrics, settings.max_wait_seconds, tracer=shared.tracer, is_shown=is_first
        )
        self._reader = reader
        self.running_encoder = encoder
        self.scales = self._build_scales(is_first=is_first) if settings.has_percentiles else None
        self.drift = EncoderDrift(self.index, self.encoder, shared.metrics)
        self._scrub: Scrub | None = None
        if settings.scrub_seconds is not None:
            self._scrub = Scrub(reader, shared.metrics, settings.scrub_seconds)
        self._jobs = shared.jobs
        self._reload_interval_seconds = settings.reload_interval_seconds
        self._running = AsyncExitStack()
        self._num_held = 0
        self._released = asyncio.Event()
        self._released.set()

    def _build_scales(self, *, is_first: bool) -> PercentileScales:
        pace = WHILE_SERVING if is_first else BEFORE_SERVING
        return PercentileScales(self.index, self.encoder, pace=pace)

    @property
    def encoder(self) -> QueryEncoder:
        return self.running_encoder.queries

    @property
    def canary(self) -> CanaryProbe:
        return self.running_encoder.canary

    @contextmanager
    def held(self) -> Iterator[ServedPair]:
        """Keep the pair running until the block ends."""
        self._num_held += 1
        self._released.clear()
        try:
            yield self
        finally:
            self._num_held -= 1
            if not self._num_held:
                self._released.set()

    async def released(self) -> None:
        """Wait until no request holds the pair."""
        await self._released.wait()

    async def start(self) -> None:
        """Start the encoder, follow the index, and build the scales. They stop in the reverse order."""
        await self.running_encoder.start()
        self._running.push_async_callback(self.running_encoder.stop)
        await self._running.enter_async_context(self.index.reloading(self._reload_interval_seconds))
        if self.scales is not None:
            await self._running.enter_async_context(self.scales.renewing())

    async def begin_serving(self) -> None:
        """Watch the jobs from now on, and read served files again: readiness tells of both."""
        if self.scales is not None:
            self._jobs.add(self.scales.job)
        self._jobs.add(self.drift.job)
        await self._running.enter_async_context(self.drift.watching())
        if self._scrub is not None:
            self._jobs.add(self._scrub.job)
            await self._running.enter_async_context(self._scrub.scrubbing())

    def end_serving(self) -> None:
        self.index.hide()
        self.drift.hide()
        for part in (self.scales, self.drift, self._scrub):
            if part is not None:
                self._jobs.remove(part.job)

    async def close(self) -> None:
        await self._running.aclose()
        self._reader.close()


SERVED: web.RequestKey[ServedPair] = web.RequestKey("served")
"""The pair that a request is answered with."""
