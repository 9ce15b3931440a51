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
