"""Backs up an index while it is written and searched, and puts a backup back.

A backup is a directory that is an index root of its own, with one generation of each shard and
`backup.json`, which says that it is complete. So every command can look into it.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from clip_index.errors import DamagedFile, IndexMissing, IndexRefused
from clip_index.generations.canaries import FILE as CANARIES
from clip_index.generations.history import list_generations, manifest_name
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.manifest import Manifest, dump_manifest, parse_manifest
from clip_index.generations.recorded_model import copy_model
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.durable_files import fsync_path, make_directory
from clip_index.storage.index_roots import IndexRoot, local_directory
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import UNFINISHED_PREFIX, ShardStore
from cliptide.snapshot.file_copy import copy_files, remove_all_but

MARKER = "backup.json"
_DESCRIPTION, _CURRENT = "index.json", "current-1.json"
_BESIDE = (_DESCRIPTION, CANARIES)
"""What lies beside the shards. An index of an earlier release has no canaries."""
_MAX_TRIES = 100


@dataclass(frozen=True, slots=True)
class CopiedShard:
    """What a backup holds of a shard, or a restored index. `num_bytes` were copied now."""

    shard: str
    generation: int
    next_offset: int
    num_contents: int
    num_bytes: int


def back_up(index: IndexDirectory, root: IndexRoot, target: Path) -> Iterator[CopiedShard]:
    """Copy the newest generation of each shard into `target`; yield each shard that has one.

    `target` is empty, or holds a former backup of this index, whose good files are kept. That backup
    stays complete until the new one is.

    Step 1 claims the directory. Step 2 copies each shard: first its files, then its manifest. Step 3
    declares the backup complete. Step 4 removes what only the former backup needed.
    """
    _claim(index, root, target)  # Step 1
    copies: list[tuple[LocalShardStore, Manifest]] = []
    for source in _stores(index):
        store = LocalShardStore(_index_path(target, index.index_id) / source.name)
        copied = _copy_newest(source, store)  # Step 2
        if copied is not None:
            manifest, num_bytes = copied
            copies.append((store, manifest))
            yield _told(source.name, manifest, num_bytes)
    _declare(index.index_id, target, is_complete=True)  # Step 3
    for store, manifest in copies:
        remove_all_but(store, manifest)  # Step 4


def open_backup(folder: Path) -> IndexDirectory:
    """Open a backup; `IndexRefused` if the directory is none, or one that was not completed."""
    fields = _read_marker(folder)
    if fields is None:
        raise IndexRefused(f"{folder} is not a backup: it has no {MARKER}")
    if not fields["is_complete"]:
        raise IndexRefused(f"the backup in {folder} was not completed: make it again")
    return IndexDirectory.open(folder, fields["index_id"])


def existing_index(root: Path, index_id: str) -> IndexDirectory | None:
    """Return the index that a restored one would replace."""
    try:
        return IndexDirectory.open(root, index_id)
    except (IndexMissing, FileNotFoundError):
        return None


def restore(backup: IndexDirectory, root: Path, existing: IndexDirectory | None) -> Iterator[CopiedShard]:
    """Put a backup into the root under its id; yield each shard. `existing` is moved aside first.

    Every file is verified before anything is moved. Each shard begins with a new generation that is
    greater than all of the existing index and fences its writers. A shard in which a writer committed
    during step 1 is yielded once more, with the generation that it got then.

    Step 1 copies everything under a name that no reader looks at. Step 2 moves the existing index
    aside. Then no writer reaches it any more, and the generations of step 1 that are no longer the
    greatest get a new number. Step 3 moves the copy to its place. Step 4 names it as the index that
    serves, if no other is.
    """
    staged = root / "indexes" / f"{UNFINISHED_PREFIX}restore-{secrets.token_hex(4)}"
    copies: list[tuple[LocalShardStore, Manifest]] = []
    replaced = None if existing is None else existing.path
    for source in _stores(backup):
        generation = _newest_number(source, replaced) + 1
        store = LocalShardStore(staged / source.name)
        if (copied := _copy_newest(source, store, as_generation=generation)) is not None:  # Step 1
            copies.append((store, copied[0]))
            yield _told(source.name, *copied)
    make_directory(staged)
    LocalShardStore(staged).put({n: backup.store.read(n) for n in _BESIDE if backup.store.exists(n)})
    copy_model(backup.store, LocalShardStore(staged))
    overtaken: list[CopiedShard] = []
    if replaced is not None:
        aside = moved_aside(root, backup.index_id)
        os.rename(replaced, aside)  # Step 2
        overtaken.extend(_renumber_overtaken(copies, aside))
    os.rename(staged, _index_path(root, backup.index_id))  # Step 3
    fsync_path(root / "indexes")
    fsync_path(root)
    if not list(root.glob("current-*.json")):
        LocalShardStore(root).ensure(_CURRENT, dump_digested({"index_id": backup.index_id}))  # Step 4
    yield from overtaken


def moved_aside(root: Path, index_id: str) -> Path:
    """Return the first free name for the index that a restored one replaces."""
    numbers = range(1, 10**6)
    return next(path for n in numbers if not (path := root / f"replaced-{index_id}-{n}").exists())


def _claim(index: IndexDirectory, root: IndexRoot, target: Path) -> None:
    own, other = local_directory(root).resolve(), target.resolve()
    if own == other or own in other.parents or other in own.parents:
        raise IndexRefused(f"{target} and the index root {root} must not lie in each other")
    make_directory(target)
    found = _read_marker(target)
    if found is None and os.listdir(target):
        raise IndexRefused(f"{target} is neither empty nor a backup: choose another directory")
    description = index.store.read(_DESCRIPTION)
    store = LocalShardStore(_index_path(target, index.index_id))
    if found is None:
        _declare(index.index_id, target, is_complete=False)
    elif found["index_id"] != index.index_id:
        raise IndexRefused(f"{target} holds a backup of the index {found['index_id']}")
    make_directory(store.path)
    store.ensure(_DESCRIPTION, description)
    if store.read(_DESCRIPTION) != description:
        raise IndexRefused(f"{target} holds a backup of another index with the id {index.index_id}")
    copy_model(index.store, store)
    if index.store.exists(CANARIES):
        _put_anew(store, CANARIES, index.store.read(CANARIES))
    LocalShardStore(target).ensure(_CURRENT, dump_digested({"index_id": index.index_id}))


def _put_anew(store: LocalShardStore, name: str, data: bytes) -> None:
    """Write a file durably, also where a former backup has another one."""
    if store.exists(name) and store.read(name) != data:
        store.remove(name)
    store.ensure(name, data)


def _copy_newest(
    source: ShardStore, target: LocalShardStore, as_generation: int | None = None
) -> tuple[Manifest, int] | None:
    """Copy the newest generation; None without one. Begin again when it is collected meanwhile.

    Files that were copied by then are kept, so every try has less to do.
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
        if as_generation is not None:
            manifest = _following(manifest, as_generation)
            data = dump_manifest(manifest)
        _write_manifest(target, manifest, data)
        return manifest, num_bytes
    raise IndexRefused(f"{source.name}: files are collected faster than they can be copied")


def _following(manifest: Manifest, generation: int) -> Manifest:
    """The same under a new number, whose writer epoch is greater than that of any former writer.

    An epoch never exceeds the number of its generation.
    """
    writer_id = f"restore-{os.getpid()}"
    return replace(
        manifest, generation=generation, writer_epoch=generation, writer_id=writer_id, nonce=uuid4().hex
    )


def _write_manifest(target: LocalShardStore, manifest: Manifest, data: bytes) -> None:
    _put_anew(target, manifest_name(manifest.generation), data)  # another one may be of before a restoration


def _newest_number(source: ShardStore, existing: Path | None) -> int:
    """The greatest number of a generation, in the backup or in the index that it replaces."""
    stores: list[ShardStore] = (
        [source] if existing is None else [source, LocalShardStore(existing / source.name)]
    )
    return max((number for store in stores for number in list_generations(store)), default=0)


def _renumber_overtaken(
    copies: Sequence[tuple[LocalShardStore, Manifest]], existing: Path
) -> Iterator[CopiedShard]:
    """Give the copied generations a greater number where a writer has reached theirs meanwhile.

    Without it that writer's next number would be greater, so that its commit would succeed and name
    segments which the restored index does not have.
    """
    for store, manifest in copies:
        newest = max(list_generations(LocalShardStore(existing / store.name)), default=0)
        if newest >= manifest.generation:
            renumbered = _following(manifest, newest + 1)
            _write_manifest(store, renumbered, dump_manifest(renumbered))
            store.remove(manifest_name(manifest.generation))
            yield _told(store.name, renumbered, 0)


def _stores(index: IndexDirectory) -> Sequence[ShardStore]:
    return [index.shard_store(n) for n in range(index.description.num_partitions)]


def _index_path(root: Path, index_id: str) -> Path:
    return root / "indexes" / index_id


def _declare(index_id: str, target: Path, *, is_complete: bool) -> None:
    LocalShardStore(target).replace(MARKER, dump_digested({"index_id": index_id, "is_complete": is_complete}))
    fsync_path(target / MARKER)
    fsync_path(target)


def _read_marker(folder: Path) -> dict[str, Any] | None:
    path = folder / MARKER
    try:
        return parse_digested(path.read_bytes(), path)
    except FileNotFoundError:
        return None


def _told(shard: str, manifest: Manifest, num_bytes: int) -> CopiedShard:
    return CopiedShard(shard, manifest.generation, manifest.next_offset, manifest.num_live(), num_bytes)
