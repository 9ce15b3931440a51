"""What the generations of a shard are worth: manifests read, and every file that they name verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clip_index.errors import DamagedFile
from clip_index.generations.history import list_generations, manifest_path, read_manifest
from clip_index.generations.manifest import Manifest
from clip_index.storage.file_digest import FileDigest, verify_file


@dataclass(frozen=True, slots=True)
class InspectedGeneration:
    """`manifest` is None if it cannot be read, `damage` the first file that is not what it should be."""

    generation: int
    manifest: Manifest | None
    damage: DamagedFile | None = None


class Inspection:
    """Looks at the generations of one shard; a file that several of them name is read once."""

    def __init__(self, shard_path: Path) -> None:
        self.shard_path = shard_path
        self._damages: dict[tuple[Path, FileDigest], DamagedFile | None] = {}

    def newest_first(self) -> Iterator[InspectedGeneration]:
        """Yield what the directory lists; a generation that is collected meanwhile is left out."""
        for generation in reversed(list_generations(self.shard_path)):
            found = self.inspect(generation)
            if found is not None:
                yield found

    def inspect(self, generation: int) -> InspectedGeneration | None:
        """Judge one generation; None if there is none of this number."""
        try:
            manifest = read_manifest(self.shard_path, generation)
        except FileNotFoundError:
            return None
        except DamagedFile as unreadable:
            return InspectedGeneration(generation, None, unreadable)
        damage = self._damage_of(manifest)
        if damage is not None and not manifest_path(self.shard_path, generation).exists():
            return None  # manifests are collected before the files that they name
        return InspectedGeneration(generation, manifest, damage)

    def _damage_of(self, manifest: Manifest) -> DamagedFile | None:
        damages = (self._verdict(path, digest) for path, digest in manifest.file_paths(self.shard_path))
        return next((damage for damage in damages if damage is not None), None)

    def _verdict(self, path: Path, digest: FileDigest) -> DamagedFile | None:
        if (path, digest) not in self._damages:
            self._damages[path, digest] = _verify(path, digest)
        return self._damages[path, digest]


def _verify(path: Path, digest: FileDigest) -> DamagedFile | None:
    try:
        verify_file(path, digest)
    except FileNotFoundError:
        return DamagedFile(path, "it is missing")
    except DamagedFile as damage:
        return damage
    return None
