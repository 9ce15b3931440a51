"""The percentile scales of the index as it is: built beside the requests, renewed as it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager

import structlog
from aiohttp import web

from clip_index.content import Embeddings, Modality
from clip_index.errors import ClipIndexError
from query_api.encoding.query_encoder import QueryEncoder
from query_api.errors import ApiError
from query_api.percentiles.background_queries import Scales, build_scales, read_phrases
from query_api.serving.background_job import BackgroundJob
from query_api.serving.engine import Snapshot
from query_api.serving.served_index import ServedIndex

log = structlog.get_logger()
_REST_FACTOR = 4  # after each search, and after each renewal: a twenty-fifth of one processor in all


class PercentileScales:
    """Holds the scales that were built last."""

    def __init__(self, served: ServedIndex, encoder: QueryEncoder, *, min_pause_seconds: float = 5.0) -> None:
        self._served = served
        self._encoder = encoder
        self._min_pause_seconds = min_pause_seconds
        self._job = BackgroundJob("percentiles")
        self._scales: Mapping[Modality, Scales] | None = None

    def find(self, asked_by: Modality | None) -> Scales | None:
        """Return the scales for queries of a modality; None until the first were built.

        Queries of no one modality have none for ever.
        """
        if asked_by is None:
            return {}
        return None if self._scales is None else self._scales[asked_by]

    def renewing(self) -> AbstractAsyncContextManager[None]:
        """Build the scales now, and again after changes of the index, until the context ends."""
        return self._job.running(self._renew_forever())

    async def _renew_forever(self) -> None:
        phrases: list[Embeddings] = []
        built_of: Snapshot | None = None
        while True:
            searcher = await self._served.other_searcher(built_of)
            began = time.monotonic()
            try:
                phrases = phrases or await self._encode_phrases()
                self._scales = await self._job.run(build_scales, searcher, phrases, self._rest)
                built_of = searcher
            except (ClipIndexError, ApiError, OSError) as error:
                log.error("percentile scales not renewed", error=str(error))
            except CancelledError:  # as the service stops
                return
            except Exception:
                log.exception("percentile scales not renewed")  # and tried again, as searches would be
            pause_seconds = _REST_FACTOR * (time.monotonic() - began)
            await asyncio.sleep(max(self._min_pause_seconds, pause_seconds))

    async def _encode_phrases(self) -> list[Embeddings]:
        """One by one, so that a query waits for one phrase at most."""
        return [await self._encoder.encode_text_afresh(phrase) for phrase in read_phrases()]

    def _rest(self, searched_seconds: float) -> None:
        self._job.pause(_REST_FACTOR * searched_seconds)


PERCENTILE_SCALES: web.AppKey[PercentileScales | None] = web.AppKey("percentile_scales")
