"""Rewrites several segments as one, without their dead rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.content import MODALITIES, Modality, VectorForm
from clip_index.errors import BrokenEmbeddings
from clip_index.generations.history import read_manifest
from clip_index.generations.manifest import Manifest, SegmentEntry, tombstones_name
from clip_index.generations.tombstones import live_rows_mask, read_tombstones
from clip_index.segments.columns import CONTENTS_SCHEMA, DELETES_SCHEMA, THUMBNAILS_SCHEMA, joined
from clip_index.segments.segment import Segment
from clip_index.segments.segment_files import ModalityVectors, SegmentRows, write_segment
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file
from clip_index.vectors.calibration import TARGET_RECALL
from clip_index.vectors.centroid_set import CentroidSets, KnownLists
from clip_index.vectors.lists.inverted_lists import MIN_NODES
from clip_index.vectors.shared_vectors import SharedVectors
from clip_index.vectors.vector_file import VectorFile
from clip_index.writing.other_segments import OtherSegments, open_verified

DROPPED = -1
_BLOCK = 65536


@dataclass(frozen=True, slots=True)
class MergeJob:
    """Merge the segments `segment_ids` into a segment `merged_id`.

    `generation` tells which of their rows are dead. `started_ms` (ms since 1970) is a time at
    which that generation was the newest. `siblings` are the other shards of the index, with which the
    merged segment may share its centroids.
    """

    store: ShardStore
    generation: int
    segment_ids: tuple[str, ...]
    merged_id: str
    started_ms: int
    target_recall: float = TARGET_RECALL
    siblings: tuple[ShardStore, ...] = ()
    vectors: VectorForm = "fp16"


@dataclass(frozen=True, slots=True)
class MergeResult:
    """The merged segment and, for each source segment, its row map.

    A row map has shape (rows,), int64: the number that each row has in the merged segment, or
    `DROPPED`. `entry` is None if the merged segment would be empty.
    """

    entry: SegmentEntry | None
    row_maps: dict[str, NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class _Source:
    segment: Segment
    is_alive: NDArray[np.bool_]
    row_map: NDArray[np.int64]


def run_merge(job: MergeJob) -> MergeResult:
    """Verify and read the sources, publish the merged segment, return the new numbers of the rows.

    No manifest changes: until the shard's writer commits the merged segment, it is garbage. A
    damaged source raises `DamagedFile`, because a merge would give the damage a valid digest.
    """
    manifest = read_manifest(job.store, job.generation)
    sources = _open_sources(job, manifest)
    rows = SegmentRows(
        contents=_merge_contents(sources),
        deletes=_merge_deletes(sources),
        thumbnails=_merge_thumbnails(sources),
        vectors=_merge_vectors(sources),
    )
    row_maps = {source.segment.segment_id: source.row_map for source in sources}
    if rows.contents.num_rows + rows.deletes.num_rows == 0:
        return MergeResult(None, row_maps)
    rest = OtherSegments(job.store, manifest, without=job.segment_ids, siblings=job.siblings)
    entry = write_segment(job.store, job.merged_id, rows, SharedVectors(rest, job.target_recall, job.vectors))
    return MergeResult(entry, row_maps)


def renumbered_rows(row_map: NDArray[np.int64], dead: BitMap) -> BitMap:
    """Return the numbers that a source's dead rows have in the merged segment, without dropped rows."""
    rows = row_map[np.array(dead.to_array(), np.int64)]
    return BitMap(rows[rows != DROPPED].tolist())


def _open_sources(job: MergeJob, manifest: Manifest) -> list[_Source]:
    entries = [entry for entry in manifest.segments if entry.segment_id in job.segment_ids]
    sources, num_rows, sets = [], 0, CentroidSets()
    for entry in entries:
        segment = open_verified(job.store, entry, sets)
        is_alive = live_rows_mask(_read_dead(job.store, manifest, entry), entry.num_contents)
        row_map = np.where(is_alive, num_rows + np.cumsum(is_alive) - 1, DROPPED)
        num_rows += int(is_alive.sum())
        sources.append(_Source(segment, is_alive, row_map))
    return sources


def _read_dead(store: ShardStore, manifest: Manifest, entry: SegmentEntry) -> BitMap:
    tombstones = manifest.tombstones.get(entry.segment_id)
    if tombstones is None:
        return BitMap()
    if (file := tombstones.file) is not None:
        verified_file(store, tombstones_name(file.file_name), file.digest)
    return read_tombstones(store, tombstones)


def _merge_contents(sources: Sequence[_Source]) -> pa.RecordBatch:
    return _merge_rows(sources, [source.segment.contents for source in sources], CONTENTS_SCHEMA)


def _merge_thumbnails(sources: Sequence[_Source]) -> pa.RecordBatch | None:
    columns = [source.segment.thumbnails for source in sources]
    if all(thumbnails is None for thumbnails in columns):
        return None
    type_ = THUMBNAILS_SCHEMA.field(0).type
    batches = [
        pa.record_batch([pa.nulls(source.segment.num_rows, type_)], THUMBNAILS_SCHEMA)
        if batch is None
        else batch
        for source, batch in zip(sources, columns, strict=True)
    ]
    return _merge_rows(sources, batches, THUMBNAILS_SCHEMA)


def _merge_rows(
    sources: Sequence[_Source], batches: Sequence[pa.RecordBatch], schema: pa.Schema
) -> pa.RecordBatch:
    """Join the live rows, one column after another: the rest stays where it is mapped meanwhile."""
    table = joined(batches, schema)
    is_alive = pa.array(np.concatenate([np.empty(0, np.bool_), *(source.is_alive for source in sources)]))
    columns = [_whole(column.filter(is_alive)) for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _merge_deletes(sources: Sequence[_Source]) -> pa.RecordBatch:
    """Keep the newest delete of each id, unless the sources hold a newer entry of that id."""
    batches = [source.segment.deletes for source in sources if source.segment.deletes is not None]
    newest: dict[str, int] = {}
    for deletes in batches:
        for content_id, offset in _ids_and_offsets(deletes):
            newest[content_id] = max(offset, newest.get(content_id, -1))
    deleted = pa.array(list(newest), pa.string())
    for source in sources:
        contents = source.segment.contents.select(["content_id", "offset"])
        for content_id, offset in _ids_and_offsets(_only_of(contents, deleted)):
            newest[content_id] = max(offset, newest[content_id])
    kept = [deletes.filter(pa.array(_is_newest(deletes, newest), pa.bool_())) for deletes in batches]
    return _concatenate(kept, DELETES_SCHEMA)


def _only_of(contents: pa.RecordBatch, ids: pa.Array) -> pa.RecordBatch:
    """Return the rows with one of the ids: few, where a Python object for each row would fill the memory."""
    return contents.filter(pc.is_in(contents.column("content_id"), value_set=ids))


def _ids_and_offsets(columns: pa.RecordBatch) -> Iterator[tuple[str, int]]:
    ids, offsets = columns.column("content_id").to_pylist(), columns.column("offset").to_pylist()
    return zip(ids, offsets, strict=True)


def _is_newest(deletes: pa.RecordBatch, newest: dict[str, int]) -> list[bool]:
    return [newest[content_id] == offset for content_id, offset in _ids_and_offsets(deletes)]


def _merge_vectors(sources: Sequence[_Source]) -> dict[Modality, ModalityVectors]:
    return {m: vectors for m in MODALITIES if (vectors := _merge_modality(sources, m)) is not None}


def _merge_modality(sources: Sequence[_Source], modality: Modality) -> ModalityVectors | None:
    """Read what stays of all sources into one array, because two would not fit into memory."""
    files = [(one, file) for one in sources if (file := one.segment.vector_files.get(modality)) is not None]
    kept = [source.is_alive[file.node_rows.rows] for source, file in files]
    ends = np.cumsum([np.count_nonzero(is_kept) for is_kept in kept], dtype=np.int64)
    if not len(ends) or not ends[-1]:
        return None
    embeddings = np.empty((ends[-1], files[0][1].dimension), np.float16)
    rows = np.empty(ends[-1], np.uint32)
    for (source, file), is_kept, end in zip(files, kept, ends.tolist(), strict=True):
        first = end - int(np.count_nonzero(is_kept))
        file.read_pairs(is_kept, embeddings[first:end])
        _refuse_not_finite(source.segment, modality, embeddings[first:end])
        rows[first:end] = source.row_map[file.node_rows.rows[is_kept]]
    return ModalityVectors(embeddings, rows, _known_lists(files, kept, modality, embeddings))


def _known_lists(
    files: Sequence[tuple[_Source, VectorFile]],
    kept: Sequence[NDArray[np.bool_]],
    modality: Modality,
    embeddings: NDArray[np.float16],
) -> KnownLists | None:
    """Return the lists that what stays lies in already, around the set that most of it lies around.

    To find the nearest of 2,000 lists takes half the CPU time of a merge. In a segment that is too small for
    lists, the others are looked for now, so that those of all `embeddings` are stored beside it. Otherwise
    they are looked for when a set is chosen.
    """
    digests = [source.segment.entry.centroids.get(modality) for source, _ in files]
    num_around: Counter[FileDigest] = Counter()
    for digest, is_kept in zip(digests, kept, strict=True):
        if digest is not None:
            num_around[digest] += int(np.count_nonzero(is_kept))
    if not num_around:
        return None
    most = num_around.most_common(1)[0][0]
    lists = [
        file.lists_of_pairs(is_kept) if digest == most else np.full(np.count_nonzero(is_kept), -1)
        for (_, file), digest, is_kept in zip(files, digests, kept, strict=True)
    ]
    known = np.concatenate(lists)
    around = next(f.shared for (_, f), d in zip(files, digests, strict=True) if d == most)
    is_new = known < 0
    if around is not None and len(known) < MIN_NODES and is_new.any():
        known[is_new] = around.nearest(embeddings[is_new])
    return KnownLists(most, known)


def _refuse_not_finite(segment: Segment, modality: Modality, embeddings: NDArray[np.float16]) -> None:
    num_broken = sum(
        int(np.count_nonzero(~np.isfinite(embeddings[first : first + _BLOCK]).all(axis=1)))
        for first in range(0, len(embeddings), _BLOCK)
    )
    if num_broken:
        raise BrokenEmbeddings(segment.segment_id, modality, num_broken)


def _concatenate(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    table = joined(batches, schema)
    return pa.RecordBatch.from_arrays([_whole(column) for column in table.columns], schema=table.schema)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; `MemoryError` beyond the 2 GiB that an array of strings can hold."""
    try:
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    except pa.ArrowInvalid as error:
        raise MemoryError(f"a merged column would exceed 2 GiB ({error})") from error
