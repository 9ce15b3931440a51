"""Backs up an index while it is written and searched.

A backup is an index root of its own, in a directory or in a bucket, with one generation of each shard and
`backup.json`, which says that it is complete. So every command can look into it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from clip_index.errors import DamagedFile, IndexRefused
from clip_index.generations.history import list_generations, manifest_name
from clip_index.generations.manifest import Manifest
from clip_index.generations.manifest_format import parse_manifest
from clip_index.indexes.canaries import FILE as CANARIES
from clip_index.indexes.index_directory import DESCRIPTION, IndexDirectory, folder_of
from clip_index.indexes.pointer import dump_first
from clip_index.indexes.recorded_model import copy_model
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.index_roots import IndexRoot, local_directory, open_root
from clip_index.storage.shard_store import UNFINISHED_PREFIX, ShardStore
from cliptide.snapshot.file_copy import copy_files, names_beside

MARKER = "backup.json"
_MAX_TRIES = 100


@dataclass(frozen=True, slots=True)
class CopiedShard:
    """What a backup holds of a shard, or a restored index. `num_bytes` were copied now."""

    shard: str
    generation: int
    next_offset: int
    num_contents: int
    num_bytes: int

    @classmethod
    def of(cls, shard: str, manifest: Manifest, num_bytes: int) -> CopiedShard:
        return cls(shard, manifest.generation, manifest.next_offset, manifest.num_live(), num_bytes)


@dataclass(frozen=True, slots=True)
class CopiedGeneration:
    """A generation whose files were copied. `data` are the bytes of its manifest, of whatever release."""

    manifest: Manifest
    data: bytes
    num_bytes: int


def back_up(index: IndexDirectory, root: IndexRoot, target: IndexRoot) -> Iterator[CopiedShard]:
    """Copy the newest generation of each shard into `target`; yield each shard that has one.

    `target` is empty, or holds a former backup of this index, whose good files are kept. That backup
    stays complete until the new one is.

    Step 1 claims the place. Step 2 copies each shard: first its files, then its manifest. Step 3
    declares the backup complete. Step 4 removes what only the former backup needed. If another backup
    claims the place meanwhile, this one ends with `IndexRefused`: each would remove what the other copies.
    """
    top, claim = open_root(target), uuid4().hex
    _refuse_overlap(root, target)
    store = _claim(index, top, claim)  # Step 1
    copies: list[tuple[ShardStore, Manifest]] = []
    for source in shard_stores(index):
        copy = store.below(source.name)
        copied = copy_newest(source, copy)
        if copied is not None:
            _check_claim(top, claim)
            put_anew(copy, manifest_name(copied.manifest.generation), copied.data)  # Step 2
            copies.append((copy, copied.manifest))
            yield CopiedShard.of(source.name, copied.manifest, copied.num_bytes)
    _check_claim(top, claim)
    _declare(top, index.index_id, claim, is_complete=True)  # Step 3
    for copy, manifest in copies:
        for name in names_beside(copy, manifest):
            _check_claim(top, claim)
            copy.remove(name)  # Step 4


def open_backup(place: IndexRoot) -> IndexDirectory:
    """Open a backup; `IndexRefused` if the place holds none, or one that was not completed."""
    fields = _read_marker(open_root(place))
    if fields is None:
        raise IndexRefused(f"{place} is not a backup: it has no {MARKER}")
    if not fields["is_complete"]:
        raise IndexRefused(f"the backup in {place} was not completed: make it again")
    return IndexDirectory.open(place, fields["index_id"])


def copy_newest(source: ShardStore, target: ShardStore) -> CopiedGeneration | None:
    """Copy the files of the newest generation; None without one. The caller writes the manifest.

    Begins again when the generation is collected meanwhile. Files that were copied by then are kept, so
    every try has less to do.
    """
    num_bytes = 0
    for _ in range(_MAX_TRIES):
        generations = list_generations(source)
        if not generations:
            return None
        name = manifest_name(generations[-1])
        try:
            data = source.read(name)
            manifest = parse_manifest(data, source.address_of(name))
            num_bytes += copy_files(source, target, manifest)
        except FileNotFoundError as error:
            if source.exists(name):
                raise DamagedFile(str(error.filename or name), "it is missing") from error
            continue
        return CopiedGeneration(manifest, data, num_bytes)
    raise IndexRefused(f"{source.name}: files are collected faster than they can be copied")


def renumbered(manifest: Manifest, generation: int) -> Manifest:
    """Return the same under a new number, whose writer epoch is greater than that of any former writer.

    An epoch never exceeds the number of its generation.
    """
    writer_id = f"restore-{os.getpid()}"
    return replace(
        manifest, generation=generation, writer_epoch=generation, writer_id=writer_id, nonce=uuid4().hex
    )


def put_anew(store: ShardStore, name: str, data: bytes) -> None:
    """Write a file durably, also where a former backup has another one, which stays until then."""
    if store.exists(name) and store.read(name) != data:
        store.renew(name, data)
    else:
        store.ensure(name, data)


def shard_stores(index: IndexDirectory) -> Sequence[ShardStore]:
    return [index.shard_store(n) for n in index.partitions]


def _refuse_overlap(root: IndexRoot, target: IndexRoot) -> None:
    """A backup inside the index, or the reverse, would be copied into itself, or be lost with it."""
    if isinstance(target, Path):
        overlaps = _overlap(str(local_directory(root).resolve()), str(target.resolve()))
    else:
        overlaps = _overlap(open_root(root).address, open_root(target).address)
    if overlaps:
        raise IndexRefused(f"{target} and the index root {root} must not lie in each other")


def _overlap(one: str, other: str) -> bool:
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")


def _claim(index: IndexDirectory, top: ShardStore, claim: str) -> ShardStore:
    """Make the place the backup of this index, or find that it is; return the index's store in it.

    A former backup stays as complete as it is.
    """
    found = _read_marker(top)
    if found is None and any(not name.startswith(UNFINISHED_PREFIX) for name in top.list_names()):
        raise IndexRefused(f"{top.address} is neither empty nor a backup: choose another place")
    store = top.below(folder_of(index.index_id))
    if found is None:
        top.prepare(())
    elif found["index_id"] != index.index_id:
        raise IndexRefused(f"{top.address} holds a backup of the index {found['index_id']}")
    _declare(top, index.index_id, claim, is_complete=found is not None and found["is_complete"])
    store.prepare(())
    description = index.store.read(DESCRIPTION)
    store.ensure(DESCRIPTION, description)
    if store.read(DESCRIPTION) != description:
        raise IndexRefused(f"{top.address} holds a backup of another index with the id {index.index_id}")
    copy_model(index.store, store)
    if index.store.exists(CANARIES):
        put_anew(store, CANARIES, index.store.read(CANARIES))
    top.ensure(*dump_first(index.index_id))
    return store


def _declare(top: ShardStore, index_id: str, claim: str, *, is_complete: bool) -> None:
    top.renew(MARKER, dump_digested({"index_id": index_id, "is_complete": is_complete, "claim": claim}))


def _check_claim(top: ShardStore, claim: str) -> None:
    found = _read_marker(top)
    if found is None or found.get("claim") != claim:
        raise IndexRefused(f"another backup into {top.address} has begun meanwhile: that one goes on")


def _read_marker(top: ShardStore) -> dict[str, Any] | None:
    try:
        return parse_digested(top.read(MARKER), top.address_of(MARKER))
    except FileNotFoundError:
        return None
