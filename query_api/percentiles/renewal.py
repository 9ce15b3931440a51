"""The percentile scales of the served index: built in the background, and again when the index changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager

import structlog

from clip_index.content import Embeddings, Modality
from clip_index.errors import ClipIndexError
from query_api.encoding.query_encoder import QueryEncoder
from query_api.errors import ApiError
from query_api.percentiles.background_queries import Scales, build_scales, read_phrases
from query_api.serving.background_job import BackgroundJob
from query_api.serving.engine import Snapshot
from query_api.serving.served_index import ServedIndex

log = structlog.get_logger()
_PAUSE_FACTOR = 4  # after each search and after each renewal, so that both take a 25th of one processor


class PercentileScales:
    """Holds the scales that were built last."""

    def __init__(
        self,
        served: ServedIndex,
        encoder: QueryEncoder,
        *,
        min_pause_seconds: float = 5.0,
        phrase_pause_factor: float = 0.0,
    ) -> None:
        """After each phrase its encoding time, times the factor, is paused. Use it while others serve."""
        self._served = served
        self._phrase_pause_factor = phrase_pause_factor
        self._encoder = encoder
        self._min_pause_seconds = min_pause_seconds
        self.job = BackgroundJob("percentiles")
        self._scales: Mapping[Modality, Scales] | None = None
        self._built = asyncio.Event()

    def find(self, asked_by: Modality | None) -> Scales | None:
        """Return the scales for queries of a modality; None until the first are built.

        A query of no single modality has no scales.
        """
        if asked_by is None:
            return {}
        return None if self._scales is None else self._scales[asked_by]

    async def built(self) -> None:
        """Wait until the first scales are built."""
        await self._built.wait()

    def renewing(self) -> AbstractAsyncContextManager[None]:
        """Build the scales now and after each change of the index, until the context ends."""
        return self.job.running(self._renew_forever())

    async def _renew_forever(self) -> None:
        phrases: list[Embeddings] = []
        built_of: Snapshot | None = None
        while True:
            searcher = await self._served.other_searcher(built_of)
            began = time.monotonic()
            try:
                phrases = phrases or await self._encode_phrases()
                self._scales = await self.job.run(build_scales, searcher, phrases, self._pause_after)
                built_of = searcher
                self._built.set()
            except (ClipIndexError, ApiError, OSError) as error:
                log.error("percentile scales not renewed", error=str(error))
            except CancelledError:  # the service is stopping
                return
            except Exception:
                log.exception("percentile scales not renewed")  # the loop tries again
            pause_seconds = _PAUSE_FACTOR * (time.monotonic() - began)
            await asyncio.sleep(max(self._min_pause_seconds, pause_seconds))

    async def _encode_phrases(self) -> list[Embeddings]:
        """Encode one phrase at a time, so that a query never waits for more than one."""
        phrases = []
        for phrase in read_phrases():
            began = time.monotonic()
            phrases.append(await self._encoder.encode_text_afresh(phrase))
            await asyncio.sleep(self._phrase_pause_factor * (time.monotonic() - began))
        return phrases

    def _pause_after(self, searched_seconds: float) -> None:
        self.job.pause(_PAUSE_FACTOR * searched_seconds)
