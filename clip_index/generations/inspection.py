"""Which generations of a shard are sound: reads the manifests and verifies every file that they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from clip_index.errors import DamagedFile
from clip_index.generations.history import list_generations, manifest_name, read_manifest
from clip_index.generations.manifest import Manifest
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file


@dataclass(frozen=True, slots=True)
class InspectedGeneration:
    """`manifest` is None if it cannot be read. `damage` names the first damaged or missing file."""

    generation: int
    manifest: Manifest | None
    damage: DamagedFile | None = None


class Inspection:
    """Inspects the generations of one shard. It reads a file that several of them name only once."""

    def __init__(self, store: ShardStore) -> None:
        self.store = store
        self._damages: dict[tuple[str, FileDigest], DamagedFile | None] = {}

    def newest_first(self) -> Iterator[InspectedGeneration]:
        """Yield the generations that are listed, without those that are collected meanwhile."""
        for generation in reversed(list_generations(self.store)):
            found = self.inspect(generation)
            if found is not None:
                yield found

    def inspect(self, generation: int) -> InspectedGeneration | None:
        """Inspect one generation; None if no generation has this number."""
        try:
            manifest = read_manifest(self.store, generation)
        except FileNotFoundError:
            return None
        except DamagedFile as unreadable:
            return InspectedGeneration(generation, None, unreadable)
        damage = self._damage_of(manifest)
        if damage is not None and not self.store.exists(manifest_name(generation)):
            return None  # a manifest is collected before its files, so this is no damage
        return InspectedGeneration(generation, manifest, damage)

    def _damage_of(self, manifest: Manifest) -> DamagedFile | None:
        damages = (self._find_damage(name, digest) for name, digest in manifest.files())
        return next((damage for damage in damages if damage is not None), None)

    def _find_damage(self, name: str, digest: FileDigest) -> DamagedFile | None:
        if (name, digest) not in self._damages:
            self._damages[name, digest] = _verify(self.store, name, digest)
        return self._damages[name, digest]


def _verify(store: ShardStore, name: str, digest: FileDigest) -> DamagedFile | None:
    try:
        verified_file(store, name, digest)
    except FileNotFoundError:
        return DamagedFile(store.address_of(name), "it is missing")
    except DamagedFile as damage:
        return damage
    return None
