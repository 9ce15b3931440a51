"""Bytes that are mapped into memory: a whole file, or a part of a pack.

A pack is mapped once, however many parts it has, and without keeping a file descriptor open. Linux
bounds the mappings and the descriptors of a process, and an index has dozens of segments a shard.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from clip_index.errors import DamagedFile
from clip_index.storage.pack import PackPart

_MADV_RANDOM = 1  # POSIX_MADV_RANDOM has this number on Linux and macOS
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


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

    def expect_random_reads(self) -> None:
        """Let the system read only the pages that are touched, where it would read 32 at once.

        A system that does not know the call reads more, which does no harm.
        """
        first = -(-self.data.address // mmap.PAGESIZE) * mmap.PAGESIZE
        num_bytes = self.data.address + self.data.size - first
        if num_bytes > 0:
            _madvise(first, num_bytes, _MADV_RANDOM)


def map_file(path: Path) -> MappedPart:
    """Map a whole file, read-only; `FileNotFoundError` if there is none."""
    with pa.memory_map(str(path), "rb") as source:
        return MappedPart(path, 0, source.read_buffer())
