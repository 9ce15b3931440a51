"""The searchers that pages were found in, kept so that the next pages come from the same generations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from clip_index.storage.bounded_cache import BoundedCache
from query_api.serving.engine import GenerationKey, Snapshot

MAX_FORMER_SEARCHERS = 8  # beside the newest one; each may keep merged segments mapped

Generations: TypeAlias = tuple[tuple[str, GenerationKey], ...]


class FormerSearchers:
    """Holds the `MAX_FORMER_SEARCHERS` that pages used last."""

    def __init__(self) -> None:
        self._searchers: BoundedCache[Generations, Snapshot] = BoundedCache(MAX_FORMER_SEARCHERS)

    def keep(self, searcher: Snapshot) -> None:
        self._searchers.keep(generations_of(searcher), searcher)

    def find(self, generations: Mapping[str, GenerationKey]) -> Snapshot | None:
        return self._searchers.find(sorted_generations(generations))


def generations_of(searcher: Snapshot) -> Generations:
    return sorted_generations({name: shard.key for name, shard in searcher.shards.items()})


def sorted_generations(generations: Mapping[str, GenerationKey]) -> Generations:
    return tuple(sorted(generations.items()))
