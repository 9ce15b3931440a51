"""Size and digest of a file, as a manifest names them, and the check of a file against them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import xxhash

from clip_index.errors import DamagedFile
from clip_index.storage.regular_files import open_regular, regular_size

_BLOCK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class FileDigest:
    """`xxh3_128` is 32 hexadecimal digits over the whole file."""

    size_bytes: int
    xxh3_128: str

    def __str__(self) -> str:
        return f"{self.size_bytes} bytes with xxh3-128 {self.xxh3_128}"


def digest_of(data: bytes) -> FileDigest:
    return FileDigest(len(data), xxhash.xxh3_128_hexdigest(data))


def digest_of_chunks(chunks: Iterable[bytes]) -> FileDigest:
    """Digest bytes that arrive one part after another."""
    digest, size_bytes = xxhash.xxh3_128(), 0
    for chunk in chunks:
        digest.update(chunk)
        size_bytes += len(chunk)
    return FileDigest(size_bytes, digest.hexdigest())


def read_digest(path: Path) -> FileDigest:
    """Read the whole file once and digest it."""
    with os.fdopen(open_regular(path), "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes == 0:
            return digest_of(b"")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            return FileDigest(size_bytes, xxhash.xxh3_128_hexdigest(mapped))


def verify_file(path: Path, expected: FileDigest) -> None:
    """Raise `DamagedFile` if the file is not the expected one, `FileNotFoundError` if it is missing."""
    check_size(path, expected)
    actual = read_digest(path)
    if actual != expected:
        raise DamagedFile(path, f"xxh3-128 {actual.xxh3_128}, expected {expected.xxh3_128}")


def check_size(path: Path, expected: FileDigest) -> None:
    """Raise `DamagedFile` if the file has another size.

    Call it before a file that was verified some time ago is mapped again: touching a mapping beyond the
    end of a truncated file kills the process (SIGBUS).
    """
    size_bytes = regular_size(path)
    if size_bytes != expected.size_bytes:
        raise DamagedFile(path, f"{size_bytes} bytes, expected {expected.size_bytes}")


def verify_slowly(path: Path, expected: FileDigest, rest: Callable[[int], None]) -> None:
    """Verify a file block by block. After each block this calls `rest` with the block's length.

    `rest` may sleep, to spare the disk, or raise, to stop.
    """
    for num_bytes in verify_in_steps(path, expected):
        rest(num_bytes)


def verify_in_steps(path: Path, expected: FileDigest) -> Iterator[int]:
    """Verify a file block by block; yield the length of each block. The last step may raise `DamagedFile`."""
    check_size(path, expected)
    digest, size_bytes = xxhash.xxh3_128(), 0
    with os.fdopen(open_regular(path), "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            size_bytes += len(block)
            yield len(block)
    actual = FileDigest(size_bytes, digest.hexdigest())
    if actual != expected:
        raise DamagedFile(path, f"{actual}, expected {expected}")


class FileVerifier:
    """Verifies every file once in a process, because a file never changes under its name.

    Used by one thread.
    """

    def __init__(self) -> None:
        self._verified: set[tuple[Path, FileDigest]] = set()

    def verify(self, path: Path, expected: FileDigest) -> None:
        if (path, expected) not in self._verified:
            verify_file(path, expected)
            self._verified.add((path, expected))

    def retain(self, paths: set[Path]) -> None:
        """Forget all other files, so that the memory does not grow with files that are gone."""
        self._verified = {entry for entry in self._verified if entry[0] in paths}
