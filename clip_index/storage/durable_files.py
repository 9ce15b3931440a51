"""Writes files so that after a crash each is complete or absent.

Order of every write: temporary name → fsync → rename or link → fsync of the directory that got
the name. After an error the file is discarded and never fsynced again: the kernel may have
dropped the dirty pages, and it reports that only once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from pathlib import Path
from uuid import uuid4

from clip_index.errors import DamagedFile
from clip_index.storage.shard_store import UNFINISHED_PREFIX

READ_ONLY = 0o444
_PROBE_BYTES = 4096
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What `link` answers on a file system without hard links. Any other error says nothing about them."""


def fsync_path(path: Path) -> None:
    """Flush one file or directory to the device."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, data: bytes) -> None:
    """Write and fsync a new read-only file. The caller must fsync the directory.

    The file is created read-only, so that the process's umask decides who may read it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, READ_ONLY)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal_file(path: Path) -> None:
    """Make a file that a library has written read-only and durable; who may read it stays."""
    path.chmod(path.stat().st_mode & READ_ONLY)
    fsync_path(path)


def make_directory(path: Path) -> None:
    """Create a directory and its missing parents, each of them durable.

    An existing `path` is fsynced as well: whoever created it may have died before its fsync.
    """
    missing = [p for p in path.parents if not p.exists()]
    for directory in (*reversed(missing), path):
        directory.mkdir(exist_ok=True)
        fsync_path(directory.parent)


def create_exclusively(path: Path, data: bytes) -> bool:
    """Create `path` with `data` in one atomic step; False if the name is taken. Durable either way.

    Uses a hard link, because a link fails if the name exists. A rename would replace the file.
    """
    temporary = path.with_name(f"{UNFINISHED_PREFIX}{path.name}-{uuid4().hex}")
    try:
        write_file(temporary, data)
        try:
            os.link(temporary, path)
            is_ours = True
        except FileExistsError:
            is_ours = False
        fsync_path(path.parent)
        return is_ours
    finally:
        temporary.unlink(missing_ok=True)


def replace_durably(path: Path, data: bytes) -> None:
    """Create or replace `path` atomically. It is durable on return."""
    temporary = path.with_name(f"{UNFINISHED_PREFIX}{path.name}-{uuid4().hex}")
    try:
        write_file(temporary, data)
        os.replace(temporary, path)
        fsync_path(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Replace `path` atomically for readers. Not durable: after a crash the old data may be back."""
    temporary = path.with_name(f"{UNFINISHED_PREFIX}{path.name}-{uuid4().hex}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except IsADirectoryError as error:
        temporary.unlink(missing_ok=True)
        raise DamagedFile(path, "a directory, where a file is expected") from error
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def remove_tree(path: Path) -> None:
    """Remove a file or directory. Does nothing if it is already gone."""
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def has_hard_links(directory: Path) -> bool:
    """Tell whether the file system of `directory` supports hard links, which commits need.

    Writes a page, so that a disk without room raises `OSError`, as any other trouble with the disk does.
    """
    probe = directory / f"{UNFINISHED_PREFIX}probe-{uuid4().hex}"
    linked = probe.with_name(probe.name + "-link")
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
        os.link(probe, linked)
        return probe.stat().st_nlink == 2
    except OSError as error:
        if error.errno in _NO_HARD_LINKS:
            return False
        raise
    finally:
        for path in (linked, probe):
            with contextlib.suppress(OSError):  # which would hide the error above
                path.unlink()
