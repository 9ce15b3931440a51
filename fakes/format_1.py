"""An index in format 1 on disk, as releases before packs wrote it: a folder for each segment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from clip_index.generations.history import manifest_name, read_newest
from clip_index.generations.manifest import (
    Manifest,
    SegmentEntry,
    TombstonesEntry,
    TombstonesFile,
    tombstones_name,
)
from clip_index.generations.manifest_format import dump_manifest
from clip_index.generations.tombstones import read_tombstones
from clip_index.storage.digested_json import dump_digested, parse_digested
from clip_index.storage.durable_files import READ_ONLY
from clip_index.storage.file_digest import FileDigest, digest_of
from clip_index.storage.local_store import LocalShardStore


def rewrite_as_format_1(shard: Path) -> Manifest:
    """Make the newest generation of a shard, and all that it names, one of format 1; return it.

    Former generations and what only they name are removed, because format 1 did not have their files.
    """
    store = LocalShardStore(shard)
    newest = read_newest(store)
    assert newest is not None
    segments = tuple(_unpack(store, entry) for entry in newest.segments)
    tombstones = {i: _as_file(store, i, entry) for i, entry in newest.tombstones.items()}
    manifest = replace(newest, segments=segments, tombstones=tombstones, nonce=uuid4().hex)
    for path in shard.glob("manifest-*"):
        path.unlink()
    _write(shard / manifest_name(manifest.generation), dump_manifest_1(manifest))
    named = {name for name, _ in manifest.files()}
    for path in [*shard.glob("segments/*.pack"), *shard.glob("tombstones/*")]:
        if str(path.relative_to(shard)) not in named:
            path.unlink()
    return manifest


def dump_manifest_1(manifest: Manifest) -> bytes:
    """Serialise a manifest as format 1 has it; none of its segments is a pack."""
    fields: dict[str, Any] = parse_digested(dump_manifest(manifest), "")
    assert all("files" in entry for entry in fields["segments"])
    assert all("file" in entry for entry in fields["tombstones"].values())
    return dump_digested({**fields, "format": [1, 0]})


def _unpack(store: LocalShardStore, entry: SegmentEntry) -> SegmentEntry:
    if entry.pack is None:
        return entry
    data = store.read(entry.stored_name)
    unpacked = replace(entry, pack=None)
    parts = {name: data[part.offset : part.end] for name, part in entry.pack.parts.items()}
    files = {name: _write(store.path / unpacked.stored_name / name, part) for name, part in parts.items()}
    return replace(unpacked, files=files)


def _as_file(store: LocalShardStore, segment_id: str, entry: TombstonesEntry) -> TombstonesEntry:
    file_name, data = f"{segment_id}-1-{uuid4().hex[:8]}", read_tombstones(store, entry).serialize()
    digest = _write(store.path / tombstones_name(file_name), data)
    return replace(entry, bitmap=b"", file=TombstonesFile(file_name, digest))


def _write(path: Path, data: bytes) -> FileDigest:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    path.chmod(READ_ONLY)
    return digest_of(data)
