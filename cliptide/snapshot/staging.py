"""The folder in which a restoration copies an index, under a name that no reader looks at."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clip_index.storage.durable_files import remove_tree
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import UNFINISHED_PREFIX

_STAGED_PREFIX = f"{UNFINISHED_PREFIX}restore-"


@contextmanager
def staging(indexes: Path) -> Iterator[LocalShardStore]:
    """Make a folder for the copy; remove it at the end unless it was moved away.

    Also remove the folders of restorations that were killed: a living one has a lock on its own, and has it
    before the folder gets its name.
    """
    token = secrets.token_hex(4)
    staged = LocalShardStore(indexes / f"{_STAGED_PREFIX}{token}")
    begun = LocalShardStore(indexes / f"{UNFINISHED_PREFIX}begun-{token}")
    begun.prepare(())
    with _try_to_lock(begun.path):
        os.rename(begun.path, staged.path)
        try:
            _remove_abandoned(indexes, staged.path)
            yield staged
        finally:
            remove_tree(staged.path)


def _remove_abandoned(indexes: Path, own: Path) -> None:
    for folder in indexes.glob(f"{_STAGED_PREFIX}*"):
        if folder != own:
            with _try_to_lock(folder) as is_locked:
                if is_locked:
                    remove_tree(folder)


@contextmanager
def _try_to_lock(folder: Path) -> Iterator[bool]:
    """Lock a folder while the context lasts, unless somebody has, or the file system has no locks for it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it was moved away or removed meanwhile
        yield False
        return
    try:
        yield _is_locked_now(descriptor)
    finally:
        os.close(descriptor)


def _is_locked_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
