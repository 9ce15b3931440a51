"""What a reader has open, and the leases that keep it."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from uuid import uuid4

from clip_index.errors import DamagedFile
from clip_index.generations.reader_leases import RENEW_SECONDS, write_lease
from clip_index.reading.searcher import Searcher
from clip_index.storage.shard_store import ShardStore


class HeldGenerations:
    """Knows which searchers somebody still uses, and renews a lease on their generations. One thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reader_id = uuid4().hex
        self._searchers: weakref.WeakSet[Searcher] = weakref.WeakSet()
        self._renewed_at = -RENEW_SECONDS
        self.failure: str | None = None
        """Why the last renewal failed; None after a success."""

    def add(self, searcher: Searcher) -> None:
        self._searchers.add(searcher)

    def renew(self, stores: Iterable[ShardStore]) -> None:
        """Renew the leases if it is time. A failure is noted in `failure`, and serving goes on."""
        if self._clock() - self._renewed_at < RENEW_SECONDS:
            return
        self._renewed_at = self._clock()
        generations: defaultdict[str, set[int]] = defaultdict(set)
        for searcher in list(self._searchers):
            for name, shard in searcher.shards.items():
                generations[name].add(shard.generation)
        try:
            for store in stores:
                if held := generations[store.name] - {0}:
                    write_lease(store, self._reader_id, held)
            self.failure = None
        except (OSError, DamagedFile) as error:
            self.failure = str(error)
