"""What nobody can need any more: decided from listings and ages, then removed."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from clip_index.errors import DamagedFile, OtherFormat
from clip_index.generations.history import GenerationTaken, list_generations, manifest_path, read_manifest
from clip_index.generations.manifest import Manifest
from clip_index.storage.durable_files import remove_tree
from clip_index.storage.shard_store import UNFINISHED_PREFIX

_MIN_RETAINED = 3


@dataclass(frozen=True, slots=True)
class NamedFiles:
    """The segment directories and tombstone files that a generation names."""

    segments: frozenset[str]
    tombstones: frozenset[str]


def named_files(manifest: Manifest) -> NamedFiles:
    tombstones = frozenset(entry.file_name for entry in manifest.tombstones.values())
    return NamedFiles(frozenset(manifest.segment_ids()), tombstones)


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
    """Collects one shard's garbage; only the current epoch's writer may call it."""

    def __init__(self, shard_path: Path, retain_for: float) -> None:
        self._shard_path = shard_path
        self._retain_for = retain_for
        self._named: dict[int, NamedFiles] = {}

    def learn(self, manifest: Manifest) -> None:
        """Remember what a generation names, to spare reading it again."""
        self._named[manifest.generation] = named_files(manifest)

    def collect(self, *, newest: int, in_flight: Collection[str], now: float) -> int:
        """Remove old generations, then files that none of the retained names; return how many.

        Raises `GenerationTaken` and removes nothing if `newest`, the caller's generation, is not
        the newest: then another writer owns the shard, and knows what it has in flight.

        While a retained manifest cannot be read, nobody knows what it names, and all files stay.
        `in_flight` are segments being written or merged. Ages are judged by modification
        times, so files of a commit or merge under way elsewhere in this process are safe.
        """
        created_at = self._created_at()
        if max(created_at, default=newest) > newest:
            raise GenerationTaken
        retained = retained_generations(created_at, self._retain_for, now)
        expired = created_at.keys() - retained
        for generation in expired:
            manifest_path(self._shard_path, generation).unlink(missing_ok=True)
        named = self._named_by(retained)
        num_removed = self._sweep_temporary(now) + len(expired)
        if named is None:
            return num_removed
        segments = {name for files in named for name in files.segments} | set(in_flight)
        tombstones = {name for files in named for name in files.tombstones}
        num_removed += self._sweep(self._shard_path / "segments", segments, now)
        num_removed += self._sweep(self._shard_path / "tombstones", tombstones, now)
        return num_removed

    def _created_at(self) -> dict[int, float]:
        paths = {g: manifest_path(self._shard_path, g) for g in list_generations(self._shard_path)}
        return {generation: path.stat().st_mtime for generation, path in paths.items()}

    def _named_by(self, retained: Collection[int]) -> list[NamedFiles] | None:
        """What the retained generations name; None if one of them cannot be read, as after a repair."""
        self._named = {g: names for g, names in self._named.items() if g in retained}
        for generation in retained - self._named.keys():
            try:
                self.learn(read_manifest(self._shard_path, generation))
            except (DamagedFile, OtherFormat):
                return None
        return list(self._named.values())

    def _sweep(self, directory: Path, kept: Collection[str], now: float) -> int:
        garbage = [p for p in directory.iterdir() if _bare(p.name) not in kept and self._is_old(p, now)]
        for path in garbage:
            remove_tree(path)
        return len(garbage)

    def _sweep_temporary(self, now: float) -> int:
        garbage = [p for p in self._shard_path.glob(f"{UNFINISHED_PREFIX}*") if self._is_old(p, now)]
        for path in garbage:
            remove_tree(path)
        return len(garbage)

    def _is_old(self, path: Path, now: float) -> bool:
        try:
            return now - path.stat().st_mtime >= self._retain_for
        except FileNotFoundError:
            return False


def _bare(name: str) -> str:
    return name.removeprefix(UNFINISHED_PREFIX)
