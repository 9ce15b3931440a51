"""The parts of a stored segment: they lie in its pack, or are files of their own, as in format 1."""

from __future__ import annotations

from typing import Protocol

from clip_index.errors import DamagedFile
from clip_index.generations.manifest import SegmentEntry
from clip_index.storage.mapped_part import MappedPart, map_file
from clip_index.storage.shard_store import ShardStore


class MappedParts(Protocol):
    """Parts by name. Those that it maps are verified."""

    def __contains__(self, name: str) -> bool: ...

    def map(self, name: str) -> MappedPart: ...


class SegmentParts:
    """Maps the parts of one segment. Its files must have been verified before."""

    def __init__(self, store: ShardStore, entry: SegmentEntry) -> None:
        """Map the pack; `FileNotFoundError` if it was collected."""
        self._store = store
        self._entry = entry
        self._pack = map_file(store.local_file(entry.stored_name, entry.pack.digest)) if entry.pack else None

    def __contains__(self, name: str) -> bool:
        return self._entry.has_part(name)

    def map(self, name: str) -> MappedPart:
        """Map a part that the segment has; `FileNotFoundError` if its file was collected."""
        if self._pack is not None and self._entry.pack is not None:
            if name not in self._entry.pack.parts:
                raise DamagedFile(self._pack.path, f"its segment has no {name}")
            return self._pack.part(self._entry.pack.parts[name])
        file_name = f"{self._entry.stored_name}/{name}"
        return map_file(self._store.local_file(file_name, self._entry.files[name]))
