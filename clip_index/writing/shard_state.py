"""A shard as its newest generation shows it, opened so that its writer can look ids up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pyroaring import BitMap

from clip_index.content import Derived, EncodedContent
from clip_index.errors import DamagedFile
from clip_index.fold import UNSEEN, IdState
from clip_index.generations.manifest import Manifest
from clip_index.generations.tombstones import read_tombstones
from clip_index.segments.id_table import hash_ids
from clip_index.segments.segment import Segment
from clip_index.segments.segment_ids import FoundEntry
from clip_index.storage.file_digest import FileVerifier
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file
from clip_index.vectors.centroid_set import CentroidSets
from clip_index.writing.deferred_segment import DeferredSegment, can_be_deferred


@dataclass(frozen=True, slots=True)
class RowId:
    """Names a row of a shard: its segment, and its position there."""

    segment_id: str
    row: int


@dataclass(frozen=True, slots=True)
class KnownId:
    """The folded state of an id, and the row of its content; None if the id has no live content."""

    state: IdState = UNSEEN
    live_row: RowId | None = None


@dataclass(frozen=True, slots=True)
class ShardState:
    """Immutable. A commit builds the next state, which shares the opened segments."""

    manifest: Manifest
    segments: Mapping[str, Segment | DeferredSegment] = field(default_factory=dict)
    dead: Mapping[str, BitMap] = field(default_factory=dict)
    sets: CentroidSets = field(default_factory=CentroidSets)

    def find(self, ids: Sequence[str]) -> dict[str, KnownId]:
        """Return what the generation knows of each id. Of several entries the one with the greatest
        offset counts.
        """
        newest: dict[str, FoundEntry] = {}
        hashes = hash_ids(ids)
        for segment in self.segments.values():
            for position, found in segment.find_ids(ids, hashes):
                known = newest.get(ids[position])
                if not self.is_dead(found) and (known is None or found.offset > known.offset):
                    newest[ids[position]] = found
        return {id_: _known(newest.get(id_)) for id_ in ids}

    def make_readable(self, rows: Iterable[RowId]) -> None:
        """Verify the deferred segments of some rows; `DamagedFile` if one turns out to be damaged."""
        for segment_id in {row.segment_id for row in rows}:
            _whole(self.segments[segment_id])

    def read(self, row_id: RowId) -> EncodedContent:
        """Return a content as it was added, with its embeddings (fp16 in the segment) and its thumbnail.

        Raises what `make_readable` raises, unless that was called before.
        """
        segment, row = _whole(self.segments[row_id.segment_id]), row_id.row
        stored = segment.read(row)
        return EncodedContent(
            content_id=stored.content_id,
            offset=stored.offset,
            modality=stored.modality,
            embeddings=segment.embeddings(row),
            facts=stored.facts,
            version=stored.version,
            thumbnail=segment.thumbnail(row),
            digest=segment.digest(row),
        )

    def find_derived(self, digest: bytes) -> Derived | None:
        """Return what was computed from the bytes with this digest, as the newest of their rows holds it.

        A dead row is as good as a live one while it is there: who uploads the bytes again would get the
        same from the encoder, and the row that is written then belongs to the new upload alone. A deferred
        segment that has such a row is verified now. If it is damaged it is passed over, and its owner is
        told when it verifies the segment.
        """
        found = [
            (whole, row)
            for segment in self.segments.values()
            if (rows := list(segment.find_digest(digest))) and (whole := _whole_or_none(segment))
            for row in rows
        ]
        if not found:
            return None
        segment, row = max(found, key=lambda one: one[0].offset(one[1]))
        return segment.derived(row)

    def deferred(self) -> list[DeferredSegment]:
        """Return the segments of which this machine has files that are not verified yet."""
        deferred = (one for one in self.segments.values() if isinstance(one, DeferredSegment))
        return [one for one in deferred if one.is_here and not one.is_whole]

    def is_dead(self, found: FoundEntry) -> bool:
        return found.row is not None and found.row in self.dead.get(found.segment_id, ())


def _known(found: FoundEntry | None) -> KnownId:
    if found is None:
        return KnownId()
    if found.row is None:
        return KnownId(IdState(found.floor, is_live=False))
    return KnownId(IdState(found.floor, is_live=True), RowId(found.segment_id, found.row))


def open_state(store: ShardStore, manifest: Manifest) -> ShardState:
    """Verify and open everything that a manifest names; `DamagedFile` names the first bad file."""
    for name, digest in manifest.files():
        verified_file(store, name, digest)
    sets = CentroidSets()
    return ShardState(
        manifest,
        {entry.segment_id: Segment(store, entry, sets) for entry in manifest.segments},
        {i: read_tombstones(store, entry) for i, entry in manifest.tombstones.items()},
        sets,
    )


def open_for_look_ups(store: ShardStore, manifest: Manifest) -> ShardState:
    """Do what `open_state` does, but of large packs verify only what look-ups need; see `deferred`."""
    verify, sets = FileVerifier().verify, CentroidSets()
    segments: dict[str, Segment | DeferredSegment] = {}
    for entry in manifest.segments:
        if can_be_deferred(entry):
            segments[entry.segment_id] = DeferredSegment(store, entry, sets)
        else:
            for name, digest in entry.files_needed:
                verified_file(store, name, digest, verify)
            segments[entry.segment_id] = Segment(store, entry, sets)
    for name, digest in manifest.tombstone_files():
        verified_file(store, name, digest)
    dead = {i: read_tombstones(store, entry) for i, entry in manifest.tombstones.items()}
    return ShardState(manifest, segments, dead, sets)


def _whole(segment: Segment | DeferredSegment) -> Segment:
    return segment if isinstance(segment, Segment) else segment.whole()


def _whole_or_none(segment: Segment | DeferredSegment) -> Segment | None:
    if isinstance(segment, DeferredSegment) and not (segment.is_here or segment.is_whole):
        return None  # to fetch all of it takes longer than to encode one content
    try:
        return _whole(segment)
    except (DamagedFile, OSError):
        return None


def next_state(
    store: ShardStore, state: ShardState, manifest: Manifest, dead: Mapping[str, BitMap]
) -> ShardState:
    """Return the state that `manifest` describes. `dead` are the rows that its tombstones name.

    This opens only the segments that `state` has not opened already.
    """
    segments = {
        entry.segment_id: state.segments.get(entry.segment_id) or Segment(store, entry, state.sets)
        for entry in manifest.segments
    }
    return ShardState(manifest, segments, dead, state.sets)
