"""Bytes that are mapped into memory: a whole file, or a part of a pack.

A pack is mapped once, however many parts it has, and without keeping a file descriptor open. Linux
bounds the mappings and the descriptors of a process, and an index has dozens of segments a shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from clip_index.errors import DamagedFile
from clip_index.storage.pack import PackPart


@dataclass(frozen=True, slots=True)
class MappedPart:
    """The bytes `[offset, offset + data.size)` of a file. The mapping lives as long as `data`."""

    path: Path
    offset: int
    data: pa.Buffer

    def part(self, place: PackPart) -> MappedPart:
        """Return a part of these bytes without copying it; `DamagedFile` if it ends behind them."""
        if not 0 <= place.offset <= place.end <= self.data.size:
            raise DamagedFile(self.path, f"{self.data.size} bytes, where a part ends at {place.end}")
        data = self.data.slice(place.offset, place.size_bytes)
        return MappedPart(self.path, self.offset + place.offset, data)


def map_file(path: Path) -> MappedPart:
    """Map a whole file, read-only; `FileNotFoundError` if there is none."""
    with pa.memory_map(str(path), "rb") as source:
        return MappedPart(path, 0, source.read_buffer())
