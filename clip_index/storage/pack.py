"""A pack: one file that holds several parts, one after another.

A commit waits for the device once for each file and once for each directory. So what belongs together
is one file. Each part begins at a multiple of `ALIGNMENT`, where mapped arrays and columns may lie.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol

import xxhash

ALIGNMENT = 64
"""Arrow and NumPy ask for no more."""


@dataclass(frozen=True, slots=True)
class PackPart:
    """Where a part lies in its pack: the bytes `[offset, offset + size_bytes)`.

    `xxh3_128` is their digest, 32 hexadecimal digits. Many packs have one digest for all parts alone.
    """

    offset: int
    size_bytes: int
    xxh3_128: str | None = None

    @property
    def end(self) -> int:
        return self.offset + self.size_bytes


class ByteSink(Protocol):
    """What a part is written to: a `PartFile`, or any file that is open for writing."""

    def write(self, data: Any, /) -> int: ...


class PartFile(io.RawIOBase):
    """The part of a pack that is being written: a file of its own for the libraries that write it."""

    def __init__(self, pack: BinaryIO) -> None:
        self._pack = pack
        self._offset = pack.tell()
        self._num_bytes = 0
        self._digest = xxhash.xxh3_128()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        num_bytes = self._pack.write(data)
        self._digest.update(data)
        self._num_bytes += num_bytes
        return num_bytes

    def tell(self) -> int:
        return self._num_bytes

    def flush(self) -> None:
        """Leave the flush to the pack."""

    @property
    def place(self) -> PackPart:
        return PackPart(self._offset, self._num_bytes, self._digest.hexdigest())


class PackWriter:
    """Writes a new pack, part by part; `OSError` if the disk is full or fails. Used by one thread."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("xb")
        self.parts: dict[str, PackPart] = {}

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @contextmanager
    def part(self, name: str) -> Iterator[PartFile]:
        """Write the next part. Only one is open at a time."""
        self._file.write(bytes(-self._file.tell() % ALIGNMENT))
        file = PartFile(self._file)
        yield file
        self.parts[name] = file.place
