"""Follows the newest generations of an index and keeps a searcher over them.

It notices once a second when another index lies at its path, and follows that one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.errors import DamagedFile, EncoderMismatch, GenerationGone, IndexMissing, OtherFormat
from clip_index.generations.manifest import NO_GENERATION, GenerationKey
from clip_index.generations.traces import TracedRecord, read_traces
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.doubled_ids import DoubledIds
from clip_index.reading.held_generations import HeldGenerations
from clip_index.reading.shard_reader import ShardReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.index_roots import IndexRoot
from clip_index.vectors.centroid_set import CentroidSets
from clip_index.views.snapshot import ShardView

_LOOK_EVERY_SECONDS = 1.0


class IndexReader:
    """Keeps a searcher over the newest readable generations. One thread at a time calls `reload`."""

    def __init__(
        self,
        root: IndexRoot,
        index_id: str | None = None,
        fingerprint: EncoderFingerprint | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        holds_files: bool = False,
    ) -> None:
        """`fingerprint` is that of the queries' encoder; None to read without an encoder.

        With `holds_files` the reader renews a lease on what it has open. That needs an index that it can
        write to.
        """
        self._root = root
        self._index_id = index_id
        self._fingerprint = fingerprint
        self._clock = clock
        self._shards: list[ShardReader] = []
        self._served: list[ShardView] = []
        self._successors: list[Callable[[], bool]] = []
        self._sets = CentroidSets()
        self._doubled = DoubledIds()
        self._looked_at = -math.inf
        self._held = HeldGenerations(clock) if holds_files else None
        self.index: IndexDirectory | None = None
        self.searcher: Searcher | None = None

    def reload(self) -> bool:
        """Serve the current generations; True if other ones are served now than before.

        Raises `IndexMissing` or `EncoderMismatch`. If a shard fails, raises its `DamagedFile`,
        `OtherFormat` or `OSError`: that shard is served as before, and the others move on. If the
        shard has no former view, nothing else is served.
        """
        try:
            return self._reload()
        finally:
            if self._held is not None:
                self._held.renew(shard.store for shard in self._shards)

    def close(self) -> None:
        """Give up the local copies of what was served, when nobody uses it any more."""
        for shard in self._shards:
            shard.close()

    def may_have_news(self) -> bool:
        """Whether a shard seems to have a generation behind the served one. Any thread may call this.

        Generations that are no successors, and watermarks, are found by `reload` alone.
        """
        return any(is_there() for is_there in self._successors)

    @property
    def lease_failure(self) -> str | None:
        """Why another machine may remove what is served; None while it is held, or need not be."""
        return None if self._held is None else self._held.failure

    def _reload(self) -> bool:
        index = self._follow_index()
        failures = []
        for shard in self._shards:
            try:
                shard.reload()
            except (DamagedFile, OtherFormat, OSError) as failure:
                failures.append((shard, failure))
        if any(shard.view.snapshot.generation == 0 for shard, _ in failures):
            raise failures[0][1]
        has_changed = self._serve([shard.view for shard in self._shards], index)
        if failures:
            raise failures[0][1]
        return has_changed

    def fall_back(self) -> bool:
        """After a reload has raised `DamagedFile`: serve the newest good generation of each shard.

        False if a shard has none, or the index itself is damaged; then nothing is served.
        """
        if self.index is None:
            return False
        unopened = [shard for shard in self._shards if shard.view.snapshot.generation == 0]
        if not all(shard.fall_back() for shard in unopened):
            return False
        self._serve([shard.view for shard in self._shards], self.index)
        return True

    def open_former(self, generations: Mapping[str, GenerationKey]) -> Searcher:
        """Open a searcher over the given generations, one for each shard; share what is open.

        Writers keep a generation for some minutes after the next one. `GenerationGone` names the
        first generation that is missing, a shard that this index does not have, or a number that
        another commit has taken since. Only the thread that reloads may call this.
        """
        if self.index is None:
            raise IndexMissing("no index is open yet")
        shards = {shard.view.name: shard for shard in self._shards}
        if strange := sorted(generations.keys() ^ shards.keys()):
            raise GenerationGone(strange[0], generations.get(strange[0], NO_GENERATION).number)
        views = [shards[name].open_former(generations[name]) for name in shards]
        return self._build_searcher(views, self.index)

    def served_files(self) -> dict[Path, FileDigest]:
        """Return the files of the served generations. Each was verified before it was first opened."""
        return {path: digest for shard in self._shards for path, digest in shard.files().items()}

    def mend(self, path: Path) -> bool:
        """Fetch a damaged local copy of a served file again; False if it is the only one there is.

        The next reload opens the new copy. Any thread may call this.
        """
        return any(shard.mend(path) for shard in self._shards)

    def read_traces(self, shard: str) -> list[TracedRecord]:
        """Return the latest sampled records of a shard; none if the index has no such shard."""
        if self.index is None:
            return []
        stores = map(self.index.shard_store, range(self.index.description.num_partitions))
        return next((read_traces(store) for store in stores if store.name == shard), [])

    def _serve(self, views: list[ShardView], index: IndexDirectory) -> bool:
        """Compare with what is served, not with the last reload, because that reload may have failed."""
        has_changed = _generations(views) != _generations(self._served)
        if [id(view) for view in views] != [id(view) for view in self._served]:
            searcher = self._build_searcher(views, index)
            if self.searcher is not None:
                searcher.prepare_like(self.searcher)
            self.searcher = searcher
            self._served = views
            self._successors = [shard.look_for_successor() for shard in self._shards]
        return has_changed

    def _build_searcher(self, views: list[ShardView], index: IndexDirectory) -> Searcher:
        shown = self._doubled.without_older(views)
        searcher = Searcher(shown, index.description.fingerprint.dimension)
        if self._held is not None:
            self._held.add(searcher)
        return searcher

    def _follow_index(self) -> IndexDirectory:
        """Return the index at our path. If it is another one than before, forget the shards of that one."""
        if self.index is not None and self._clock() - self._looked_at < self._look_every(self.index):
            return self.index
        self._looked_at = self._clock()
        found = self._open_index(self._index_id) if self.index is None else self._look_again(self.index)
        if found != self.index:
            for shard in self._shards:
                shard.close()
            stores = map(found.shard_store, range(found.description.num_partitions))
            self._shards = [ShardReader(store, self._clock, self._sets, self._held) for store in stores]
            self.index = found
        return found

    @staticmethod
    def _look_every(index: IndexDirectory) -> float:
        return max(_LOOK_EVERY_SECONDS, index.store.look_every_seconds)

    def _look_again(self, known: IndexDirectory) -> IndexDirectory:
        """Open what is there now, or go on with the known index while that cannot be read.

        If no index has the known id any more, the current one of the root is opened, unless an id was
        asked for. Raises `EncoderMismatch` if an index of another encoder has taken its place.
        """
        try:
            try:
                return self._open_index(known.index_id)
            except IndexMissing:
                return self._open_index(self._index_id)
        except (IndexMissing, DamagedFile, OtherFormat, OSError):
            return known  # its shards tell what is wrong, if they cannot be read either

    def _open_index(self, index_id: str | None) -> IndexDirectory:
        index = IndexDirectory.open(self._root, index_id)
        built_by = index.description.fingerprint
        if self._fingerprint is not None and not built_by.has_same_model_as(self._fingerprint):
            raise EncoderMismatch(built_by=str(built_by), running=str(self._fingerprint))
        return index


def _generations(views: list[ShardView]) -> dict[str, GenerationKey]:
    """Return the generation of each shard that has one."""
    return {view.name: view.snapshot.key for view in views if view.snapshot.generation}
