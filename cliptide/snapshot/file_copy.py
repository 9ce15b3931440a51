"""Copies the files of one generation, each verified, from one shard's store into another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import PurePosixPath

from clip_index.errors import DamagedFile
from clip_index.generations.garbage import names_of
from clip_index.generations.history import list_generations, manifest_name
from clip_index.generations.manifest import CENTROIDS, SEGMENTS, TOMBSTONES, Manifest
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file


def copy_files(source: ShardStore, target: ShardStore, manifest: Manifest) -> int:
    """Copy every file that the manifest names, durably; return how many bytes were copied.

    A good file that the target has already is kept. Raises `FileNotFoundError` if a file is missing
    in the source, and `DamagedFile` if one is not what the manifest says.
    """
    files = dict(manifest.files())
    target.prepare(sorted({str(PurePosixPath(name).parent) for name in files}))
    num_bytes = 0
    for name, digest in files.items():
        if not target.holds(name, digest):
            _copy_file(source, target, name, digest)
            num_bytes += digest.size_bytes
    return num_bytes


def names_beside(store: ShardStore, manifest: Manifest) -> Iterator[str]:
    """Yield what the manifest does not name: former generations, their files, and unfinished copies."""
    kept = names_of(manifest)
    for generation in list_generations(store):
        if generation != manifest.generation:
            yield manifest_name(generation)
    for folder in (SEGMENTS, TOMBSTONES, CENTROIDS):
        for name in store.list_names(folder):
            if f"{folder}/{name}" not in kept:
                yield f"{folder}/{name}"


def _copy_file(source: ShardStore, target: ShardStore, name: str, digest: FileDigest) -> None:
    """Copy one file and compare what was written. A bucket's own copy on this machine is given up again."""
    target.remove_staged(name)  # a copy that a kill cut off may be read-only already
    try:
        shutil.copyfile(verified_file(source, name, digest), target.staging_path(name))
        written = target.publish(name)
    finally:
        target.remove_staged(name)
    if written != digest:
        target.remove(name)
        raise DamagedFile(target.address_of(name), f"{written} were written, expected {digest}")
    target.forget_copy(target.local_file(name, digest))
