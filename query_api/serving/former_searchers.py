"""The searchers that pages were found in, kept so that the next pages come from the same generations."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

from clip_index.storage.bounded_cache import BoundedCache
from query_api.serving.engine import GenerationKey, Snapshot

MAX_FORMER_SEARCHERS = 8  # beside the newest one; each may keep merged segments mapped

KEPT_SECONDS = 3600.0
"""From when a searcher was kept first. Shorter than a lease holds its files on a shared file system."""

Generations: TypeAlias = tuple[tuple[str, GenerationKey], ...]


class FormerSearchers:
    """Holds the `MAX_FORMER_SEARCHERS` that pages used last, each for an hour at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._searchers: BoundedCache[Generations, tuple[float, Snapshot]] = BoundedCache(
            MAX_FORMER_SEARCHERS
        )

    def keep(self, searcher: Snapshot) -> None:
        generations = generations_of(searcher)
        known = self._searchers.find(generations)
        self._searchers.keep(generations, (self._clock() if known is None else known[0], searcher))

    def find(self, generations: Mapping[str, GenerationKey]) -> Snapshot | None:
        known = self._searchers.find(sorted_generations(generations))
        return None if known is None else known[1]

    def forget_old(self) -> None:
        """Drop what was kept an hour ago, and with it the files that it maps."""
        self._searchers.drop_if(lambda kept: self._clock() - kept[0] >= KEPT_SECONDS)


def generations_of(searcher: Snapshot) -> Generations:
    return sorted_generations({name: shard.key for name, shard in searcher.shards.items()})


def sorted_generations(generations: Mapping[str, GenerationKey]) -> Generations:
    return tuple(sorted(generations.items()))
