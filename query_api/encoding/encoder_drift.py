"""Tells when the encoder has drifted from the one that the index was begun with.

The index keeps the embeddings of some canaries. They are encoded here at the start and now and then, like
queries: one at a time, and a query never waits for more than one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import structlog

from clip_index.content import Embeddings, Modality
from clip_index.encoder.canary import Canary
from query_api.encoding.query_encoder import QueryEncoder
from query_api.errors import ContentRefused
from query_api.serving.background_job import BackgroundJob
from query_api.serving.engine import Index, KeptCanaries, library_versions
from query_api.serving.served_index import ServedIndex
from query_api.telemetry.metrics import Metrics, remove_series

log = structlog.get_logger()
_EVERY_SECONDS = 600.0
_TICK_SECONDS = 10.0  # how soon another index, or canaries that were not there, are looked at


class EncoderDrift:
    """Watches one served index."""

    def __init__(
        self,
        served: ServedIndex,
        encoder: QueryEncoder,
        metrics: Metrics,
        *,
        every_seconds: float = _EVERY_SECONDS,
        tick_seconds: float = _TICK_SECONDS,
    ) -> None:
        self._served = served
        self._encoder = encoder
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._tick_seconds = tick_seconds
        self._looked_at: Index | None = None
        self._due_at = 0.0
        self._is_shown = True
        self._shown: frozenset[Modality] = frozenset()
        self.job = BackgroundJob("canaries")
        self.complaint: str | None = None
        self.problem: str | None = None
        """Why nothing can be compared, None if nothing hinders it."""

    async def complaint_of(self, kept: KeptCanaries) -> str | None:
        """Compare before anything is served: neither a metric nor the log tells of it."""
        return kept.compare(await self._encode(kept), self._encoder.number_format).complaint

    def hide(self) -> None:
        """Another index is served: the metrics tell of its encoder, as soon as it was asked."""
        self._show({}, has_drifted=False)
        self._is_shown = False

    def watching(self) -> AbstractAsyncContextManager[None]:
        """Look at the canaries until the context ends."""
        return self.job.running(self._watch_forever())

    async def _watch_forever(self) -> None:
        await self._served.other_searcher(None)  # the first one
        while True:
            index = self._served.index
            if index is not self._looked_at or time.monotonic() >= self._due_at:
                await self._try_to_look(index)
            await asyncio.sleep(self._tick_seconds)

    async def _try_to_look(self, index: Index) -> None:
        """Whatever goes wrong is told, and tried again; the encoder's own faults are the canary probe's."""
        try:
            kept = await self.job.run(index.read_canaries)
            if kept is not None:
                await self._look(kept)
        except Exception as error:  # noqa: BLE001 (the loop goes on)
            self._note_problem(error)
            return
        self.problem = None
        if kept is None:  # the index is of an earlier release: its next consumer writes them
            self.complaint = None
            self._show({}, has_drifted=False)
            return
        seconds = self._every_seconds if self.complaint is None else self._tick_seconds
        self._looked_at, self._due_at = index, time.monotonic() + seconds

    async def _look(self, kept: KeptCanaries) -> None:
        now = await self._encode(kept)
        found = kept.compare(now, self._encoder.number_format)
        self._show(found.cosines, has_drifted=found.has_drifted)
        if found.complaint is not None and self.complaint is None:
            made_with, runs_with = dict(kept.made_with), library_versions()
            log.error("encoder drifted", error=found.complaint, made_with=made_with, runs_with=runs_with)
        elif found.complaint is None and self.complaint is not None:
            log.info("encoder is as before")
        self.complaint = found.complaint

    def _show(self, cosines: Mapping[Modality, float], *, has_drifted: bool) -> None:
        if not self._is_shown:
            return
        gauge = self._metrics.canary_cosine
        for modality, cosine in cosines.items():
            gauge.labels(modality).set(cosine)
        for modality in self._shown - cosines.keys():
            remove_series(gauge, modality)
        self._shown = frozenset(cosines)
        self._metrics.encoder_drifted.set(has_drifted)

    async def _encode(self, kept: KeptCanaries) -> dict[Canary, Embeddings]:
        now = {}
        for canary in kept.embeddings:
            try:
                now[canary] = await self._encoder.encode_content(canary.content)
            except ContentRefused:
                continue  # by limits that this service has and the consumer did not
        return now

    def _note_problem(self, error: Exception) -> None:
        if self.problem is None:
            log.error("canaries not compared", error=f"{type(error).__name__}: {error}")
        self.problem = "the encoder cannot be compared with the index's canaries; the log says why"
