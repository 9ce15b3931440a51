"""The percentile scales of the served index: built in the background, and again when the index changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

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
_PAUSE_FACTOR = 6  # after each search and after each renewal, so that both take a 49th of one processor
_CHANGED_SHARE = 0.05
"""While a smaller share of the contents has changed, hardly one background query in twenty has another best
hit. A renewal can wait, because it costs half a second of CPU time."""
_LATEST_SECONDS = 60.0  # after which a smaller change is followed, too


@dataclass(frozen=True, slots=True)
class PhrasePace:
    """How many phrases are encoded at once. The pause after them is their encoding time, times the factor."""

    at_once: int
    pause_factor: float = 0.0


WHILE_SERVING = PhrasePace(4)
"""For the encoder that answers queries, which wait for no more than one batch. One of four takes half as long
again as a single phrase."""
BEFORE_SERVING = PhrasePace(8, pause_factor=1.0)
"""For an index that is opened beside the one that serves, whose queries need the processor. Eight at once
cost a quarter of the CPU time of eight singly. If both indexes share an encoder, a query waits for them twice
as long as for one."""


class PercentileScales:
    """Holds the scales that were built last."""

    def __init__(
        self,
        served: ServedIndex,
        encoder: QueryEncoder,
        *,
        min_pause_seconds: float = 5.0,
        pace: PhrasePace = WHILE_SERVING,
    ) -> None:
        self._served = served
        self._pace = pace
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
            searcher = await self._changed_searcher(built_of)
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

    async def _changed_searcher(self, built_of: Snapshot | None) -> Snapshot:
        """Wait until the index has changed enough, or has changed at all and a minute is over."""
        began = time.monotonic()
        while True:
            searcher = await self._served.other_searcher(built_of)
            has_waited = time.monotonic() - began >= _LATEST_SECONDS
            if built_of is None or has_waited or changed_share(built_of, searcher) >= _CHANGED_SHARE:
                return searcher
            await asyncio.sleep(self._min_pause_seconds)

    async def _encode_phrases(self) -> list[Embeddings]:
        """Encode some phrases at a time, so that a query never waits for all of them."""
        phrases: list[Embeddings] = []
        waiting = read_phrases()
        while waiting:
            began = time.monotonic()
            some, waiting = waiting[: self._pace.at_once], waiting[self._pace.at_once :]
            phrases += await asyncio.gather(*map(self._encoder.encode_text_afresh, some))
            await asyncio.sleep(self._pace.pause_factor * (time.monotonic() - began))
        return phrases

    def _pause_after(self, searched_seconds: float) -> None:
        self.job.pause(_PAUSE_FACTOR * searched_seconds)


def changed_share(former: Snapshot, searcher: Snapshot) -> float:
    """Return how many records `searcher` covers beyond `former`, as a share of the contents; at most 1.

    A record adds, replaces or deletes one content. 1 stands for shards that are not the former ones.
    """
    pairs = [(former.shards.get(name), shard) for name, shard in searcher.shards.items()]
    if any(known is None or known.next_offset > shard.next_offset for known, shard in pairs):
        return 1.0
    num_records = sum(shard.next_offset - known.next_offset for known, shard in pairs if known is not None)
    num_contents = sum(sum(shard.num_contents.values()) for _, shard in pairs)
    return min(1.0, num_records / max(1, num_contents))
