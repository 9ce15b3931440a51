"""Copies the files of one generation, each verified, from one shard's directory into another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from clip_index.errors import DamagedFile
from clip_index.generations.garbage import names_of
from clip_index.generations.history import list_generations, manifest_name
from clip_index.generations.manifest import CENTROIDS, SEGMENTS, TOMBSTONES, Manifest
from clip_index.storage.durable_files import fsync_path, make_directory, seal_file
from clip_index.storage.file_digest import FileDigest, verify_file
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import UNFINISHED_PREFIX, ShardStore


def copy_files(source: ShardStore, target: LocalShardStore, manifest: Manifest) -> int:
    """Copy every file that the manifest names, durably; return how many bytes were copied.

    A good file that the target has already is kept. Raises `FileNotFoundError` if a file is missing
    in the source, and `DamagedFile` if one is not what the manifest says.
    """
    num_bytes, folders = 0, {target.path}
    make_directory(target.path)
    for name, digest in manifest.files():
        path = target.local_file(name)
        make_directory(path.parent)
        folders |= {path.parent, path.parent.parent}
        if not _is_there(path, digest):
            _copy_file(source.local_file(name, digest), path, digest)
            num_bytes += digest.size_bytes
    for folder in folders:
        fsync_path(folder)
    return num_bytes


def remove_all_but(store: LocalShardStore, manifest: Manifest) -> None:
    """Remove what the manifest does not name: former generations, their files, and unfinished copies."""
    kept = names_of(manifest)
    for generation in list_generations(store):
        if generation != manifest.generation:
            store.remove(manifest_name(generation))
    for folder in (SEGMENTS, TOMBSTONES, CENTROIDS):
        for name in store.list_names(folder):
            if f"{folder}/{name}" not in kept:
                store.remove(f"{folder}/{name}")


def _is_there(path: Path, digest: FileDigest) -> bool:
    try:
        verify_file(path, digest)
    except (FileNotFoundError, DamagedFile):
        return False
    return True


def _copy_file(source: Path, path: Path, digest: FileDigest) -> None:
    """Write under a temporary name, verify what was written, and rename: no damaged file has its name."""
    temporary = path.with_name(f"{UNFINISHED_PREFIX}{path.name}")
    temporary.unlink(missing_ok=True)  # a copy that a kill cut off may be read-only already
    try:
        shutil.copyfile(source, temporary)
        try:
            verify_file(temporary, digest)
        except DamagedFile as damage:
            raise DamagedFile(source, damage.detail) from damage
        seal_file(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
