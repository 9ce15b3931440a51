"""Files whose bytes were compared with their digest. A damaged local copy is fetched again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from clip_index.errors import DamagedFile
from clip_index.storage.file_digest import FileDigest, verify_file
from clip_index.storage.shard_store import ShardStore

Verify = Callable[[Path, FileDigest], None]


def verified_file(store: ShardStore, name: str, expected: FileDigest, verify: Verify = verify_file) -> Path:
    """Return where the file is, verified; `DamagedFile` if the store has other bytes than expected.

    Raises `FileNotFoundError` if there is no such file.
    """
    path = store.local_file(name, expected)
    try:
        verify(path, expected)
    except DamagedFile:
        if not store.forget_copy(path):
            raise
        path = store.local_file(name, expected)
        verify(path, expected)
    return path
