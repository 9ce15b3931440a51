"""The searchers that pages were found in, kept so that the next pages come from the same generations."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeAlias

from query_api.serving.engine import GenerationKey, Snapshot

MAX_FORMER_SEARCHERS = 8  # beside the newest one; each may keep merged segments mapped

Generations: TypeAlias = tuple[tuple[str, GenerationKey], ...]


class FormerSearchers:
    """Holds the `MAX_FORMER_SEARCHERS` that were kept last."""

    def __init__(self) -> None:
        self._searchers: OrderedDict[Generations, Snapshot] = OrderedDict()

    def keep(self, searcher: Snapshot) -> None:
        generations = generations_of(searcher)
        self._searchers[generations] = searcher
        self._searchers.move_to_end(generations)
        while len(self._searchers) > MAX_FORMER_SEARCHERS:
            self._searchers.popitem(last=False)

    def find(self, generations: Mapping[str, GenerationKey]) -> Snapshot | None:
        return self._searchers.get(sorted_generations(generations))


def generations_of(searcher: Snapshot) -> Generations:
    return sorted_generations({name: shard.key for name, shard in searcher.shards.items()})


def sorted_generations(generations: Mapping[str, GenerationKey]) -> Generations:
    return tuple(sorted(generations.items()))
