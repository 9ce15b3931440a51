"""Which lists the embeddings of a commit lie in.

Readers join small segments in lists around the centroids of a merged segment. To find the nearest of 1,000
and more centroids takes 20 µs of CPU for an embedding of 512 dimensions, and every process that reads the
index would do it again. So whoever commits does it once, and stores the lists beside the embeddings. Merges
take them over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from clip_index.content import Modality
from clip_index.errors import DamagedFile
from clip_index.generations.manifest import SegmentEntry, centroids_name
from clip_index.segments.segment_files import ModalityVectors, SegmentRows, effort_name
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file
from clip_index.vectors.centroid_set import CentroidSet, CentroidSets, KnownLists


@dataclass(frozen=True, slots=True)
class _Guide:
    """A set of centroids; None where its file is damaged."""

    digest: FileDigest
    centroids: CentroidSet | None


class CommitLists:
    """Finds the lists that a reader of the same generation would find, or others that are about as near.

    Belongs to one shard's writer.
    """

    def __init__(self, store: ShardStore, sets: CentroidSets) -> None:
        self._store = store
        self._sets = sets
        self._guides: dict[Modality, _Guide] = {}

    def listed(self, rows: SegmentRows, entries: Sequence[SegmentEntry]) -> SegmentRows:
        """Return the rows with the lists of their embeddings; `entries` are the shard's segments.

        Without a set of centroids, or if its file cannot be read, the lists are left out: readers then look
        for them. Damage is told by whoever verifies the shard.
        """
        vectors = {m: self._listed(m, of_modality, entries) for m, of_modality in rows.vectors.items()}
        return replace(rows, vectors=vectors)

    def _listed(
        self, modality: Modality, vectors: ModalityVectors, entries: Sequence[SegmentEntry]
    ) -> ModalityVectors:
        digest = guide_of(entries, modality)
        centroids = None if digest is None else self._find(modality, digest)
        if digest is None or centroids is None or centroids.dimension != vectors.embeddings.shape[1]:
            return vectors
        return replace(vectors, known=KnownLists(digest, centroids.nearest(vectors.embeddings)))

    def _find(self, modality: Modality, digest: FileDigest) -> CentroidSet | None:
        """Return the set; None if its file is damaged, or cannot be read now."""
        guide = self._guides.get(modality)
        if guide is None or guide.digest != digest:
            try:
                guide = _Guide(digest, self._sets.find_or_open(digest, partial(self._path_of, digest)))
            except DamagedFile:
                guide = _Guide(digest, None)
            except OSError:
                return None
            self._guides[modality] = guide
        return guide.centroids

    def _path_of(self, digest: FileDigest) -> Path:
        return verified_file(self._store, centroids_name(digest), digest)


def guide_of(entries: Sequence[SegmentEntry], modality: Modality) -> FileDigest | None:
    """Return the set of centroids of the largest merged segment; None if it has one of its own, or none."""
    merged = [entry for entry in entries if entry.has_part(effort_name(modality))]
    largest = max(merged, key=lambda entry: entry.num_vectors.get(modality, 0), default=None)
    return None if largest is None else largest.centroids.get(modality)
