"""What a reader has open, and the leases that keep it."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from uuid import uuid4

from clip_index.errors import DamagedFile
from clip_index.generations.reader_leases import RENEW_SECONDS, write_lease
from clip_index.searching.searcher import Searcher
from clip_index.storage.shard_store import ShardStore


class HeldGenerations:
    """Knows which searchers somebody still uses, and renews a lease on their generations. One thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._reader_id = uuid4().hex
        self._searchers: weakref.WeakSet[Searcher] = weakref.WeakSet()
        self._renewed_at = -RENEW_SECONDS
        self._written_at: dict[str, float] = {}
        self._opening: defaultdict[str, set[int]] = defaultdict(set)
        self.failure: str | None = None
        """Why the last renewal failed; None after a success."""

    def add(self, searcher: Searcher) -> None:
        """Hold what a searcher has open for as long as somebody uses it."""
        self._searchers.add(searcher)
        for name, shard in searcher.shards.items():
            self._opening[name].discard(shard.generation)

    def opening(self, store: ShardStore, generation: int) -> None:
        """Hold a generation while its files are verified, which may take longer than they would be kept.

        Called for each file. What is opened within `RENEW_SECONDS` is young enough to be kept without it.
        """
        self._opening[store.name].add(generation)
        if self._clock() - self._written_at.get(store.name, -RENEW_SECONDS) >= RENEW_SECONDS:
            self._write([store])

    def opening_former(self, store: ShardStore, generation: int) -> None:
        """Hold a generation that is not the newest before it is opened, because its time may be up."""
        if generation not in self._held()[store.name]:
            self._opening[store.name].add(generation)
            self._write([store])

    def renew(self, stores: Iterable[ShardStore]) -> None:
        """Renew the leases if it is time. A failure is noted in `failure`, and serving goes on."""
        if self._clock() - self._renewed_at < RENEW_SECONDS:
            return
        self._renewed_at = self._clock()
        self._write(stores)

    def _held(self) -> defaultdict[str, set[int]]:
        """Return the generations of each shard that somebody uses, or that are being opened."""
        generations: defaultdict[str, set[int]] = defaultdict(set)
        for name, opening in self._opening.items():
            generations[name] |= opening
        for searcher in list(self._searchers):
            for name, shard in searcher.shards.items():
                generations[name].add(shard.generation)
        return generations

    def _write(self, stores: Iterable[ShardStore]) -> None:
        generations = self._held()
        try:
            for store in stores:
                if held := generations[store.name] - {0}:
                    write_lease(store, self._reader_id, held)
                    self._written_at[store.name] = self._clock()
            self.failure = None
        except (OSError, DamagedFile) as error:
            self.failure = str(error)
