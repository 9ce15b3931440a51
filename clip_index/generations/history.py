"""The generations of a shard: numbered manifests in its directory, made current by a link."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from uuid import uuid4

from clip_index.errors import CommitUnknown, DamagedFile
from clip_index.generations.manifest import Manifest, dump_manifest, parse_manifest
from clip_index.storage.durable_files import fsync_path, write_file
from clip_index.storage.shard_store import UNFINISHED_PREFIX

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_MANIFEST_NAME = re.compile(r"manifest-(\d{20})\.json")


def manifest_path(shard_path: Path, generation: int) -> Path:
    return shard_path / f"manifest-{generation:020d}.json"


def list_generations(shard_path: Path) -> list[int]:
    """Return the generations that the directory lists, ascending; empty if there is no directory."""
    try:
        names = os.listdir(shard_path)
    except FileNotFoundError:
        return []
    matches = (_MANIFEST_NAME.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in matches if match)


def read_manifest(shard_path: Path, generation: int) -> Manifest:
    """Read one generation; `DamagedFile` if it is not what it says, `FileNotFoundError` if it is gone."""
    path = manifest_path(shard_path, generation)
    manifest = parse_manifest(path.read_bytes(), path)
    if manifest.generation != generation:
        raise DamagedFile(path, f"it says generation {manifest.generation}")
    return manifest


def read_newest(shard_path: Path) -> Manifest | None:
    """Read the newest generation, None for a shard without one. A damaged one is never skipped."""
    while generations := list_generations(shard_path):
        try:
            return read_manifest(shard_path, generations[-1])
        except FileNotFoundError:
            continue  # collected since the listing, so a newer one exists
    return None


class GenerationTaken(Exception):
    """Another writer made this or a greater generation current: ours is not the newest."""


def link_manifest(shard_path: Path, manifest: Manifest) -> None:
    """Make the manifest current, or leave the shard as it was.

    Either this returns, and the generation is durable and the newest; or it raises:
    `GenerationTaken` (another writer was faster, or has gone on from our generation
    already), `OSError` (before the link, or no room for it: nothing happened, the commit may
    be tried again), `CommitUnknown` (at or behind the link, and the disk does not tell).

    Step 1 writes the manifest under a temporary name and fsyncs it. Step 2 links it to
    its number, which fails when the number is taken. Step 3 fsyncs the directory.
    Step 4 lists: garbage collection frees old numbers, so the link alone proves nothing;
    only if no greater generation exists has the commit succeeded.
    """
    temporary = shard_path / f"{UNFINISHED_PREFIX}manifest-{uuid4().hex}"
    try:
        write_file(temporary, dump_manifest(manifest))  # Step 1
        try:
            os.link(temporary, manifest_path(shard_path, manifest.generation))  # Step 2
        except OSError as error:
            _confirm_link(shard_path, manifest, error)
        newest = _fsync_and_list(shard_path)  # Steps 3 and 4
        if newest > manifest.generation:
            raise GenerationTaken
    finally:
        with contextlib.suppress(OSError):  # behind the link an error here must not look like one before it
            temporary.unlink()


def _confirm_link(shard_path: Path, manifest: Manifest, error: OSError) -> None:
    """A link that reports an error may have happened all the same (network file systems).

    Returns if the name holds this very commit, which its writer id and nonce tell. A name
    that is free says nothing, since the link may still be on its way; but "no room" is an
    answer, and the writer must live on to collect garbage.
    """
    try:
        found = read_manifest(shard_path, manifest.generation)
    except FileNotFoundError:
        if isinstance(error, FileExistsError):
            raise GenerationTaken from error
        if error.errno in _NO_ROOM:
            raise error from None
        raise CommitUnknown(f"{shard_path.name}: generation {manifest.generation}: {error}") from error
    except (OSError, DamagedFile) as unreadable:
        raise CommitUnknown(f"{shard_path.name}: generation {manifest.generation}: {unreadable}") from error
    if (found.writer_id, found.nonce) != (manifest.writer_id, manifest.nonce):
        raise GenerationTaken from error


def _fsync_and_list(shard_path: Path) -> int:
    try:
        fsync_path(shard_path)
        return int(list_generations(shard_path)[-1])
    except (OSError, IndexError) as error:
        raise CommitUnknown(f"{shard_path.name}: the directory could not be fsynced: {error}") from error
