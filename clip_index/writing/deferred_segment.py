"""A segment that a takeover has opened for look-ups, before the rest of its files is verified.

Vectors and thumbnails are most of a segment's bytes. A new owner needs none of them to fold what arrives.
They are verified later, in small steps beside the commits, and at once when something of them is asked for.
So nothing damaged is ever read from them, and a merge verifies its sources itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from clip_index.errors import DamagedFile
from clip_index.generations.manifest import SegmentEntry, SegmentPack
from clip_index.segments.segment import Segment
from clip_index.segments.segment_files import IDS, PARTS_OF_IDS
from clip_index.segments.segment_ids import FoundEntry, SegmentIds
from clip_index.storage.file_digest import FileDigest, verify_in_steps
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file
from clip_index.vectors.centroid_set import CentroidSets


class DeferredSegment:
    """Thread-safe. One thread takes the steps of `verify`."""

    def __init__(self, store: ShardStore, entry: SegmentEntry, sets: CentroidSets) -> None:
        """Verify and open what look-ups need; `DamagedFile` if it is not what the manifest says.

        Of a pack in a bucket that this machine has no copy of, nothing else is fetched. Then `is_here` is
        false: there is nothing to verify until somebody needs the whole of it and fetches it.
        """
        self.entry = entry
        self.segment_id = entry.segment_id
        self._store = store
        self._sets = sets
        self._lock = threading.Lock()
        self._whole: Segment | None = None
        self._verified: set[str] = set()
        self._damage: DamagedFile | None = None
        if entry.pack is None:
            raise ValueError(f"{entry.segment_id} has no pack")
        self.is_here = store.has_local(entry.stored_name, entry.pack.digest)
        self._ids = _open_ids(store, entry, entry.pack)

    def find_ids(self, ids: Sequence[str], hashes: NDArray[np.uint64]) -> Iterator[tuple[int, FoundEntry]]:
        """Do what `Segment.find_ids` does."""
        return self._ids.find_ids(ids, hashes)

    def find_digest(self, digest: bytes) -> Iterator[int]:
        """Do what `Segment.find_digest` does."""
        return self._ids.find_digest(digest)

    @property
    def is_whole(self) -> bool:
        return self._whole is not None

    @property
    def is_damaged(self) -> bool:
        return self._damage is not None

    def raise_damage(self) -> None:
        """Raise the damage that was found; do nothing if none was."""
        if self._damage is not None:
            raise self._damage

    def whole(self) -> Segment:
        """Return the segment when all of its files are verified, which this does now if need be.

        Raises `DamagedFile`, each time the same.
        """
        with self._lock:
            self.raise_damage()
            if self._whole is None:
                try:
                    self._whole = self._open()
                except DamagedFile as damage:
                    self._damage = damage
                    raise
            return self._whole

    def _open(self) -> Segment:
        """Verify what is not verified yet, then map all of it. A file that is missing is damage."""
        for name, digest in self.entry.files_needed:
            self._verify_file(name, digest)
        try:
            return Segment(self._store, self.entry, self._sets)
        except FileNotFoundError as error:
            address = self._store.address_of(self.entry.stored_name)
            raise DamagedFile(error.filename or address, "it is missing") from error

    def _verify_file(self, name: str, digest: FileDigest) -> None:
        if name not in self._verified:
            try:
                verified_file(self._store, name, digest)
            except FileNotFoundError as error:
                raise DamagedFile(self._store.address_of(name), "it is missing") from error
            self._verified.add(name)

    def verify(self) -> Iterator[None]:
        """Verify the files, a block at each step, then open the segment; raise what `whole` does.

        A file that is damaged or missing is looked at once more as a whole, as at a takeover: that names the
        damage, and fetches a damaged local copy again. That it was good in a former try does not count.
        """
        for name, digest in self.entry.files_needed:
            if self.is_whole or self._damage is not None:
                break
            try:
                for _ in verify_in_steps(self._store.local_file(name, digest), digest):
                    yield
            except (DamagedFile, FileNotFoundError):
                self._verified.discard(name)
                break
            self._verified.add(name)
        self.whole()


def can_be_deferred(entry: SegmentEntry) -> bool:
    """Whether the manifest has the digests of what look-ups need. Small and old packs have none."""
    if entry.pack is None or IDS not in entry.pack.parts:
        return False
    parts = entry.pack.parts
    return all(parts[name].xxh3_128 is not None for name in PARTS_OF_IDS if name in parts)


class _LookUpParts:
    """Implements `MappedParts`: each part is compared with its own digest when it is mapped."""

    def __init__(self, store: ShardStore, entry: SegmentEntry, pack: SegmentPack) -> None:
        self._store = store
        self._entry = entry
        self._pack = pack

    def __contains__(self, name: str) -> bool:
        return self._entry.has_part(name)

    def map(self, name: str) -> MappedPart:
        place = self._pack.parts[name]
        part = self._store.local_part(self._entry.stored_name, self._pack.digest, place)
        actual = xxhash.xxh3_128_hexdigest(part.data)
        if actual != place.xxh3_128:
            raise DamagedFile(part.path, f"{name} has xxh3-128 {actual}, expected {place.xxh3_128}")
        return part


def _open_ids(store: ShardStore, entry: SegmentEntry, pack: SegmentPack) -> SegmentIds:
    """Verify and open what look-ups need.

    If a part of it is damaged, the whole file is verified: that names the damage as ever, and fetches a
    damaged local copy again.
    """
    try:
        return SegmentIds(_LookUpParts(store, entry, pack), entry)
    except DamagedFile:
        verified_file(store, entry.stored_name, pack.digest)
        return SegmentIds(_LookUpParts(store, entry, pack), entry)
