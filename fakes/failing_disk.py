"""A disk that fails where a test says so."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from clip_index.storage import durable_files, local_store


def fail(*_: object, **__: object) -> None:
    raise OSError(errno.EIO, "input/output error")


def fail_to_fsync_the_shard(patch: pytest.MonkeyPatch) -> None:
    """Let the fsync of a shard's own directory fail: the one that follows the link of a manifest."""
    fsync_path = durable_files.fsync_path

    def fail_for_the_shard(path: Path) -> None:
        fail() if (path / "segments").is_dir() else fsync_path(path)

    patch.setattr(local_store, "fsync_path", fail_for_the_shard)


def fail_for_want_of_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "no space left on device")


def no_room_to_write(patch: pytest.MonkeyPatch) -> None:
    write_file = durable_files.write_file

    def fail_for_manifests(path: Path, data: bytes) -> None:
        fail_for_want_of_room() if "manifest-" in path.name else write_file(path, data)

    patch.setattr(local_store, "write_file", fail_for_manifests)
