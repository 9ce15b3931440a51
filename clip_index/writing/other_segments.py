"""The segments that a merge does not rewrite: those of its own shard, and those of the other shards.

A merge only reads them, and needs none of them. So a shard that cannot be read, or whose files are
collected meanwhile, is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.errors import DamagedFile, OtherFormat
from clip_index.generations.history import read_newest
from clip_index.generations.manifest import Manifest, SegmentEntry, centroids_name
from clip_index.segments.segment import Segment
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file
from clip_index.vectors.centroid_set import CentroidFile, CentroidSets, read_file

_MAX_SIBLINGS = 64
_SEED = 7


def open_verified(store: ShardStore, entry: SegmentEntry, sets: CentroidSets) -> Segment:
    """Open a segment whose files are what its entry says; else raise `DamagedFile`."""
    for name, digest in entry.stored_files():
        verified_file(store, name, digest)
    return Segment(store, entry, sets)


class OtherSegments:
    """A `RestOfIndex` as it lies in the stores of the shards. Used by one thread."""

    def __init__(
        self,
        store: ShardStore,
        manifest: Manifest,
        *,
        without: Collection[str],
        siblings: Sequence[ShardStore] = (),
    ) -> None:
        """`without` are the segments of the manifest that are merged; only their sets are looked at."""
        self._own = [(store, entry) for entry in manifest.segments]
        self._without = without
        self._siblings = siblings[:_MAX_SIBLINGS]
        self._sets = CentroidSets()
        self.num_shards = 1 + len(siblings)

    def num_nodes(self, modality: Modality) -> int:
        """Return how many distinct embeddings they have; of very many shards, some stand for the others."""
        own = sum(entry.num_vectors.get(modality, 0) for _, entry in self._own_rest)
        theirs = sum(entry.num_vectors.get(modality, 0) for _, entry in self._theirs)
        return own + theirs * (self.num_shards - 1) // max(1, len(self._siblings))

    def sets(self, modality: Modality) -> Iterator[CentroidFile]:
        """Yield each set of centroids that the segments use, or the merged ones did."""
        places: dict[FileDigest, ShardStore] = {}
        for store, entry in (*self._own, *self._theirs):
            if (digest := entry.centroids.get(modality)) is not None:
                places.setdefault(digest, store)
        for digest, store in places.items():
            try:
                yield read_file(store.local_file(centroids_name(digest), digest), digest)
            except (DamagedFile, OSError):
                continue

    def sample(self, modality: Modality, num_nodes: int) -> NDArray[np.float16]:
        """Draw the same share of each segment's embeddings. Of other shards in a bucket none are fetched."""
        theirs = [place for place in self._theirs if isinstance(place[0], LocalShardStore)]
        rest = [place for place in (*self._own_rest, *theirs) if modality in place[1].num_vectors]
        total = sum(entry.num_vectors[modality] for _, entry in rest)
        random = np.random.default_rng(_SEED)
        drawn = []
        for store, entry in rest:
            num_drawn = round(num_nodes * entry.num_vectors[modality] / max(1, total))
            try:
                file = open_verified(store, entry, self._sets).vector_files[modality]
            except (DamagedFile, OSError):
                continue
            nodes = random.choice(file.num_nodes, min(num_drawn, file.num_nodes), replace=False)
            rows = file.vectors.embeddings_of(np.sort(nodes)).astype(np.float16)
            drawn.append(rows[np.isfinite(rows).all(axis=1)])  # a broken row must not stop others' merges
        return np.concatenate(drawn) if drawn else np.empty((0, 0), np.float16)

    @property
    def _own_rest(self) -> list[tuple[ShardStore, SegmentEntry]]:
        return [(store, entry) for store, entry in self._own if entry.segment_id not in self._without]

    @cached_property
    def _theirs(self) -> list[tuple[ShardStore, SegmentEntry]]:
        """The segments of the newest generation of each other shard that has a readable one."""
        found: list[tuple[ShardStore, SegmentEntry]] = []
        for store in self._siblings:
            try:
                manifest = read_newest(store)
            except (DamagedFile, OtherFormat, OSError):
                continue
            found += [(store, entry) for entry in manifest.segments] if manifest else []
        return found
