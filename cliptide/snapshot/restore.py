"""Puts a backup back as the index of a root. Half of it is never taken for an index.

A directory gets the whole index by one rename, and an index that was there is moved aside. A bucket has
neither. There the index must not exist, and what makes it one is written at the end: the manifests of all
shards, then `index.json`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clip_index.errors import IndexMissing, IndexRefused
from clip_index.generations.history import (
    GenerationTaken,
    link_manifest,
    list_generations,
    manifest_name,
    read_newest,
)
from clip_index.generations.manifest import Manifest
from clip_index.generations.manifest_format import dump_manifest
from clip_index.indexes.canaries import FILE as CANARIES
from clip_index.indexes.index_directory import DESCRIPTION, RESTORING, IndexDirectory, folder_of
from clip_index.indexes.pointer import dump_first, newest_number
from clip_index.indexes.recorded_model import copy_model
from clip_index.storage.digested_json import dump_digested
from clip_index.storage.durable_files import fsync_path
from clip_index.storage.index_roots import IndexRoot, open_root
from clip_index.storage.local_store import LocalShardStore
from clip_index.storage.shard_store import ShardStore
from cliptide.snapshot.backup import CopiedShard, copy_newest, put_anew, renumbered, shard_stores
from cliptide.snapshot.shard_life import shows_life
from cliptide.snapshot.staging import staging


@dataclass(frozen=True, slots=True)
class _Copy:
    """A generation whose files lie in a store already. Its manifest may follow."""

    store: ShardStore
    manifest: Manifest


def existing_index(root: IndexRoot, index_id: str) -> IndexDirectory | None:
    """Return the index that a restored one would replace."""
    try:
        return IndexDirectory.open(root, index_id)
    except (IndexMissing, FileNotFoundError):
        return None


def restore(backup: IndexDirectory, root: Path, existing: IndexDirectory | None) -> Iterator[CopiedShard]:
    """Put a backup into a directory under its id; yield each shard. `existing` is moved aside first.

    Every file is verified before anything is moved. Each shard begins with a new generation that is
    greater than all of the existing index and fences its writers. A shard in which a writer committed
    during step 1 is yielded once more, with the generation that it got then.

    Step 1 copies everything under a name that no reader looks at. Step 2 moves the existing index
    aside. Then no writer reaches it any more, and the generations of step 1 that are no longer the
    greatest get a new number. Step 3 moves the copy to its place. Step 4 names it as the index that
    serves, if no other is.
    """
    top, former = LocalShardStore(root), None if existing is None else LocalShardStore(existing.path)
    if former is None and top.list_names(folder_of(backup.index_id)):
        raise IndexRefused(f"{top.address_of(folder_of(backup.index_id))} is not empty")
    overtaken: list[CopiedShard] = []
    with staging(root / "indexes") as staged:
        copies: list[_Copy] = []
        for source in shard_stores(backup):
            others = [source] if former is None else [source, former.below(source.name)]
            copied = _copy_renumbered(source, staged.below(source.name), _newest_number(others) + 1)  # Step 1
            if copied is not None:
                copy, told = copied
                copy.store.ensure(manifest_name(copy.manifest.generation), dump_manifest(copy.manifest))
                copies.append(copy)
                yield told
        _copy_beside(backup, staged)
        staged.ensure(DESCRIPTION, backup.store.read(DESCRIPTION))
        if former is not None:
            aside = moved_aside(root, backup.index_id)
            os.rename(former.path, aside)  # Step 2
            overtaken.extend(_renumber_overtaken(copies, LocalShardStore(aside)))
        _move_to(root / folder_of(backup.index_id), staged)  # Step 3
    fsync_path(root / "indexes")
    fsync_path(root)
    _name_first(top, backup.index_id)  # Step 4
    yield from overtaken


def _move_to(path: Path, staged: LocalShardStore) -> None:
    try:
        os.rename(staged.path, path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise IndexRefused(
            f"{path} was begun by another process meanwhile: stop it, then restore again with --replace"
        ) from error


def restore_in_bucket(backup: IndexDirectory, root: IndexRoot) -> Iterator[CopiedShard]:
    """Put a backup into a bucket under its id; yield each shard when its files are there.

    A restoration that was cut off may be repeated, and keeps the good files of the former try. Until it is
    complete, readers find no index, and consumers refuse to begin one.

    Step 1 claims the place: it is empty, or the former try is in it. Step 2 copies the files of all shards.
    Step 3 creates their manifests. Step 4 writes `index.json`, which makes it an index. Step 5 names it as
    the index that serves, if no other is, and gives up the claim.
    """
    top = open_root(root)
    store = top.below(folder_of(backup.index_id))
    if store.exists(RESTORING) and store.exists(DESCRIPTION):
        _finish(top, store, backup.index_id)  # a former try got as far as step 4
        return _check_restored(backup, store)
    _claim(store)  # Step 1
    copies: list[_Copy] = []
    for source in shard_stores(backup):
        target = store.below(source.name)
        copied = _copy_renumbered(source, target, _newest_number([source, target]) + 1)  # Step 2
        if copied is not None:
            copies.append(copied[0])
            yield copied[1]
    _create_manifests(copies)  # Step 3
    _copy_beside(backup, store)
    _describe(store, backup.store.read(DESCRIPTION))  # Step 4
    _finish(top, store, backup.index_id)  # Step 5


def moved_aside(root: Path, index_id: str) -> Path:
    """Return the first free name for the index that a restored one replaces."""
    numbers = range(1, 10**6)
    return next(path for n in numbers if not (path := root / f"replaced-{index_id}-{n}").exists())


def _claim(store: ShardStore) -> None:
    if store.exists(RESTORING):
        return
    if store.list_names():
        raise _not_empty(store)
    store.prepare(())
    store.ensure(RESTORING, dump_digested({"writer_id": f"restore-{os.getpid()}"}))


def _not_empty(store: ShardStore) -> IndexRefused:
    return IndexRefused(
        f"{store.address} is not empty, and nothing can be moved aside in a bucket: restore into another "
        "prefix and set CLIPTIDE_INDEX__ROOT to it, or remove what is there"
    )


def _check_restored(backup: IndexDirectory, store: ShardStore) -> None:
    """Refuse if the index that a former try has completed has gone on, or is of another backup."""
    for source in shard_stores(backup):
        saved, restored = read_newest(source), read_newest(store.below(source.name))
        if saved is not None and (restored is None or _state_of(saved) != _state_of(restored)):
            raise _not_empty(store)


def _state_of(manifest: Manifest) -> tuple[object, ...]:
    return manifest.next_offset, manifest.segments, manifest.tombstones


def _copy_renumbered(
    source: ShardStore, target: ShardStore, generation: int
) -> tuple[_Copy, CopiedShard] | None:
    copied = copy_newest(source, target)
    if copied is None:
        return None
    manifest = renumbered(copied.manifest, generation)
    return _Copy(target, manifest), CopiedShard.of(source.name, manifest, copied.num_bytes)


def _create_manifests(copies: Sequence[_Copy]) -> None:
    """Refuse where somebody writes as if an index were there: it would go on with files that are gone."""
    for copy in copies:
        if shows_life(copy.store):
            raise IndexRefused(f"{copy.store.address}: a consumer writes there: stop it, then restore again")
        try:
            link_manifest(copy.store, copy.manifest)
        except GenerationTaken:
            raise IndexRefused(
                f"{copy.store.address}: another process has written there meanwhile: restore again"
            ) from None


def _copy_beside(backup: IndexDirectory, store: ShardStore) -> None:
    """Copy what lies beside the shards. An index of an earlier release has no canaries."""
    if backup.store.exists(CANARIES):
        put_anew(store, CANARIES, backup.store.read(CANARIES))
    copy_model(backup.store, store)


def _describe(store: ShardStore, description: bytes) -> None:
    store.ensure(DESCRIPTION, description)
    if store.read(DESCRIPTION) != description:
        raise IndexRefused(f"{store.address_of(DESCRIPTION)} was written by another process meanwhile")


def _finish(top: ShardStore, store: ShardStore, index_id: str) -> None:
    _name_first(top, index_id)
    store.remove(RESTORING)


def _name_first(top: ShardStore, index_id: str) -> None:
    if not newest_number(top):
        top.ensure(*dump_first(index_id))


def _newest_number(stores: Sequence[ShardStore]) -> int:
    """Return the greatest number of a generation: in the backup, or in the index that it replaces."""
    return max((number for store in stores for number in list_generations(store)), default=0)


def _renumber_overtaken(copies: Sequence[_Copy], former: ShardStore) -> Iterator[CopiedShard]:
    """Give the copied generations a greater number where a writer has reached theirs meanwhile.

    Without it that writer's next number would be greater, so that its commit would succeed and name
    segments which the restored index does not have.
    """
    for copy in copies:
        newest = _newest_number([former.below(copy.store.name)])
        if newest >= copy.manifest.generation:
            manifest = renumbered(copy.manifest, newest + 1)
            copy.store.ensure(manifest_name(manifest.generation), dump_manifest(manifest))
            copy.store.remove(manifest_name(copy.manifest.generation))
            yield CopiedShard.of(copy.store.name, manifest, 0)
