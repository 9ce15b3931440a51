"""Opens what lies in the index root, of which not every name need be a file that the index has written.

A FIFO or a device would keep its reader waiting for ever, a link would lead out of the root, and a
sparse file would take all memory. Each of them is a `DamagedFile`, which names it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from clip_index.errors import DamagedFile

MAX_DOCUMENT_BYTES = 64 * 2**20
"""Of a file that is read as a whole. A manifest takes about a kilobyte for each segment."""

_MAX_STALE = 2
_ResultT = TypeVar("_ResultT")
_IRREGULAR = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open a regular file, never a link; return its descriptor, which the caller closes."""
    regular_size(path)
    try:
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _IRREGULAR:
            raise DamagedFile(path, f"not a regular file ({error.strerror})") from error
        raise
    try:
        _refuse_irregular(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def again_if_stale(action: Callable[[], _ResultT]) -> _ResultT:
    """Try again when NFS has lost a file because another machine removed or replaced it meanwhile.

    A new attempt looks the name up again. If that fails too, the whole directory may be gone from the
    server, so the error says nothing about the file.
    """
    for _ in range(_MAX_STALE):
        try:
            return action()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
    return action()


def read_regular(path: Path | str, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Read a regular file of at most `max_bytes`; `FileNotFoundError` if there is none."""
    return again_if_stale(partial(_read_once, path, max_bytes))


def _read_once(path: Path | str, max_bytes: int) -> bytes:
    with os.fdopen(open_regular(path), "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        # `read` reserves as much memory as it is asked for
        data = b"" if size_bytes > max_bytes else file.read(size_bytes + 1)
        if len(data) > size_bytes:  # the file has grown meanwhile
            data += file.read(max_bytes + 1 - len(data))
    if size_bytes > max_bytes or len(data) > max_bytes:
        raise DamagedFile(path, f"{size_bytes} bytes, where at most {max_bytes} are expected")
    return data


def regular_size(path: Path | str) -> int:
    """Return the size of a regular file without opening it; `FileNotFoundError` if there is none."""
    status = os.lstat(path)
    _refuse_irregular(path, status)
    return status.st_size


def check_folders(top: Path | str, folder: Path | str) -> None:
    """Raise `DamagedFile` if something between `top` and `folder` is no directory; `top` may be a link.

    `folder` is built from `top`. Folders that are missing are no damage: whoever opens a file in them
    learns that. Paths are texts here, because `pathlib` would take ten times as long.
    """
    current = os.fspath(top)
    for part in os.fspath(folder)[len(current) :].split("/"):
        if not part:
            continue
        current = f"{current}/{part}"
        try:
            mode = os.lstat(current).st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(mode):
            raise DamagedFile(current, f"{_kind(mode)}, where a directory is expected")


def _refuse_irregular(path: Path | str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DamagedFile(path, f"{_kind(status.st_mode)}, where a file is expected")


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "a file")
