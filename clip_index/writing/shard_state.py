"""A shard as its newest generation shows it, opened for look-ups by its writer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyroaring import BitMap

from clip_index.fold import UNSEEN, IdState
from clip_index.generations.manifest import Manifest
from clip_index.generations.tombstones import read_tombstones
from clip_index.segments.id_table import hash_ids
from clip_index.segments.segment import FoundEntry, Segment
from clip_index.storage.file_digest import verify_file


@dataclass(frozen=True, slots=True)
class RowId:
    """Names a row of a shard: its segment, and its position there."""

    segment_id: str
    row: int


@dataclass(frozen=True, slots=True)
class KnownId:
    """The folded state of an id, and the live row that holds its content."""

    state: IdState = UNSEEN
    live_row: RowId | None = None


@dataclass(frozen=True, slots=True)
class ShardState:
    """Immutable; a commit makes the next one, which shares the opened segments."""

    manifest: Manifest
    segments: Mapping[str, Segment] = field(default_factory=dict)
    dead: Mapping[str, BitMap] = field(default_factory=dict)

    def find(self, ids: Sequence[str]) -> dict[str, KnownId]:
        """Return what the generation knows of each id; the entry of the greatest offset tells."""
        newest: dict[str, FoundEntry] = {}
        hashes = hash_ids(ids)
        for segment in self.segments.values():
            for position, found in segment.find_ids(ids, hashes):
                known = newest.get(ids[position])
                if not self.is_dead(found) and (known is None or found.offset > known.offset):
                    newest[ids[position]] = found
        return {id_: _known(newest.get(id_)) for id_ in ids}

    def is_dead(self, found: FoundEntry) -> bool:
        return found.row is not None and found.row in self.dead.get(found.segment_id, ())


def _known(found: FoundEntry | None) -> KnownId:
    if found is None:
        return KnownId()
    if found.row is None:
        return KnownId(IdState(found.floor, is_live=False))
    return KnownId(IdState(found.floor, is_live=True), RowId(found.segment_id, found.row))


def open_state(shard_path: Path, manifest: Manifest) -> ShardState:
    """Verify and open everything that a manifest names; `DamagedFile` names the first bad file."""
    for path, digest in manifest.file_paths(shard_path):
        verify_file(path, digest)
    return ShardState(
        manifest,
        {entry.segment_id: Segment(shard_path, entry) for entry in manifest.segments},
        {i: read_tombstones(shard_path / "tombstones" / e.file_name) for i, e in manifest.tombstones.items()},
    )


def next_state(
    shard_path: Path, state: ShardState, manifest: Manifest, dead: Mapping[str, BitMap]
) -> ShardState:
    """Open only what `manifest` names beyond `state`; `dead` are its tombstones."""
    segments = {
        entry.segment_id: state.segments.get(entry.segment_id) or Segment(shard_path, entry)
        for entry in manifest.segments
    }
    return ShardState(manifest, segments, dead)
