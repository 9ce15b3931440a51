"""Files that no reader can need any more: decided from listings and ages, then removed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping

from clip_index.errors import DamagedFile, OtherFormat
from clip_index.generations.history import GenerationTaken, generation_of, manifest_name, read_manifest
from clip_index.generations.manifest import (
    CENTROIDS,
    SEGMENTS,
    TOMBSTONES,
    Manifest,
    centroids_name,
    pack_name,
    tombstones_name,
)
from clip_index.generations.reader_leases import generations_that_may_be_held, old_leases, read_leases
from clip_index.storage.shard_store import UNFINISHED_PREFIX, ShardStore, StoreTrouble

_MIN_RETAINED = 3


def names_of(manifest: Manifest) -> frozenset[str]:
    """Return what a generation needs in the shard's store, apart from its manifest.

    Packs, sets of centroids and files of tombstones; of segments of format 1 the folders.
    """
    files = [entry.file for entry in manifest.tombstones.values() if entry.file]
    segments = (entry.stored_name for entry in manifest.segments)
    sets = (centroids_name(digest) for entry in manifest.segments for digest in entry.centroids.values())
    return frozenset([*segments, *sets, *(tombstones_name(file.file_name) for file in files)])


def retained_generations(created_at: Mapping[int, float], retain_for: float, now: float) -> set[int]:
    """Return the generations to keep: the last three, and those in force within `retain_for` seconds.

    A generation is in force until its successor is created.
    """
    ascending = sorted(created_at)
    retained = set(ascending[-_MIN_RETAINED:])
    for generation, successor in itertools.pairwise(ascending):
        if now - created_at[successor] < retain_for:
            retained.add(generation)
    return retained


class GarbageCollector:
    """Collects one shard's garbage. Only the writer of the current epoch may call it."""

    def __init__(self, store: ShardStore, retain_for: float) -> None:
        self._store = store
        self._retain_for = retain_for
        self._named: dict[int, frozenset[str]] = {}

    def learn(self, manifest: Manifest) -> None:
        """Remember what a generation names, so that its manifest need not be read again."""
        self._named[manifest.generation] = names_of(manifest)

    def collect(
        self, *, newest: int, in_flight: Collection[str], now: float, merged_from: Collection[int] = ()
    ) -> int:
        """Remove old generations, then files that no retained generation names; return how many.

        `merged_from` are the generations that running merges read, whose processes may not have come to that
        yet. They stay.

        `newest` is the caller's generation. If the store has a greater one, another writer owns
        the shard and may have segments in flight that the caller does not know. Then this raises
        `GenerationTaken` and removes nothing. If the store does not list the caller's own generation
        (a network file system may forget a name for a moment), nothing is removed either, because
        what that generation names would seem to be garbage.

        `now` is a time of the clock that dates the store's files.

        `in_flight` are segments that are being written or merged. They stay, and so do all sets of
        centroids, because a merge may have chosen one of them. A file younger than
        `retain_for` stays as well, because another thread of this process may be writing it.
        What readers hold by a lease stays, too.
        While a retained manifest cannot be read, all files stay, because nobody knows which of
        them it names.

        What cannot be removed stays, with what it names, and the rest goes. Then the first `OSError` is
        raised.
        """
        times = self._store.list_times()
        created_at = {g: at for name, at in times.items() if (g := generation_of(name)) is not None}
        if max(created_at, default=newest) > newest:
            raise GenerationTaken
        if newest not in created_at:
            return 0
        retained = retained_generations(created_at, self._retain_for, now)
        retained |= created_at.keys() & set(merged_from)
        retained |= read_leases(self._store, now) & generations_that_may_be_held(created_at, now)
        expired = created_at.keys() - retained
        removals = _Removals(self._store)
        expired = {one for one in expired if removals.remove(manifest_name(one))}
        named = self._named_by(created_at.keys() - expired)
        unfinished = {name: at for name, at in times.items() if name.startswith(UNFINISHED_PREFIX)}
        self._remove_old(unfinished, now, removals)
        num_removed = removals.num_removed
        for lease in old_leases(self._store, now):
            removals.remove(lease)
        num_leases = removals.num_removed - num_removed
        if named is not None:
            kept = frozenset[str]().union(*named, map(pack_name, in_flight))
            for folder in (SEGMENTS, TOMBSTONES) if in_flight else (SEGMENTS, TOMBSTONES, CENTROIDS):
                self._sweep(folder, kept, now, removals)
        removals.raise_failure()
        return removals.num_removed - num_leases

    def _named_by(self, retained: Collection[int]) -> list[frozenset[str]] | None:
        """Return what the retained generations name; None if one cannot be read, as after a repair."""
        self._named = {g: names for g, names in self._named.items() if g in retained}
        for generation in retained - self._named.keys():
            try:
                self.learn(read_manifest(self._store, generation))
            except (DamagedFile, OtherFormat):
                return None
        return list(self._named.values())

    def _sweep(self, folder: str, kept: Collection[str], now: float, removals: _Removals) -> None:
        times = self._store.list_times(folder)
        garbage = {
            f"{folder}/{name}": at
            for name, at in times.items()
            if f"{folder}/{name.removeprefix(UNFINISHED_PREFIX)}" not in kept
        }
        self._remove_old(self._not_renewed(folder, garbage, now), now, removals)

    def _not_renewed(self, folder: str, garbage: Mapping[str, float], now: float) -> Mapping[str, float]:
        """Leave out sets of centroids that were written again since, as another owner's merge does.

        This process may have stood still since it listed them. Other files are never written again.
        """
        if folder != CENTROIDS or not any(now - at >= self._retain_for for at in garbage.values()):
            return garbage
        times = self._store.list_times(folder)
        return {name: at for name, at in garbage.items() if times.get(name.removeprefix(f"{folder}/")) == at}

    def _remove_old(self, times: Mapping[str, float], now: float, removals: _Removals) -> None:
        for name, modified_at in times.items():
            if now - modified_at >= self._retain_for:
                removals.remove(name)


class _Removals:
    """Removes files. One that cannot be removed, as on a network file system, keeps no other from going."""

    def __init__(self, store: ShardStore) -> None:
        self._store = store
        self._failure: OSError | None = None
        self.num_removed = 0

    def remove(self, name: str) -> bool:
        """Remove a file; False if it cannot be removed. A store that does not answer is asked no further."""
        try:
            self._store.remove(name)
        except StoreTrouble:
            raise
        except OSError as error:
            self._failure = self._failure or error
            return False
        self.num_removed += 1
        return True

    def raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
