"""Rewrites several segments as one, without their dead rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyroaring import BitMap

from clip_index.content import MODALITIES, Modality
from clip_index.errors import BrokenEmbeddings
from clip_index.generations.history import read_manifest
from clip_index.generations.manifest import Manifest, SegmentEntry, tombstones_name
from clip_index.generations.tombstones import live_rows_mask, read_tombstones
from clip_index.segments.columns import CONTENTS_SCHEMA, DELETES_SCHEMA, THUMBNAILS_SCHEMA, joined
from clip_index.segments.segment import Segment
from clip_index.segments.segment_files import ModalityVectors, SegmentRows, write_segment
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file
from clip_index.vectors.calibration import TARGET_RECALL
from clip_index.vectors.shared_vectors import SharedVectors
from clip_index.writing.other_segments import OtherSegments, open_verified

DROPPED = -1


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
    entry = write_segment(job.store, job.merged_id, rows, SharedVectors(rest, job.target_recall))
    return MergeResult(entry, row_maps)


def renumbered_rows(row_map: NDArray[np.int64], dead: BitMap) -> BitMap:
    """Return the numbers that a source's dead rows have in the merged segment, without dropped rows."""
    rows = row_map[np.array(dead.to_array(), np.int64)]
    return BitMap(rows[rows != DROPPED].tolist())


def _open_sources(job: MergeJob, manifest: Manifest) -> list[_Source]:
    entries = [entry for entry in manifest.segments if entry.segment_id in job.segment_ids]
    sources, num_rows = [], 0
    for entry in entries:
        segment = open_verified(job.store, entry)
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
    batches = [source.segment.contents.filter(pa.array(source.is_alive)) for source in sources]
    return _concatenate(batches, CONTENTS_SCHEMA)


def _merge_thumbnails(sources: Sequence[_Source]) -> pa.RecordBatch | None:
    if all(source.segment.thumbnails is None for source in sources):
        return None
    batches = []
    for source in sources:
        thumbnails = source.segment.thumbnails
        if thumbnails is None:
            thumbnails = pa.record_batch(
                [pa.nulls(source.segment.num_rows, THUMBNAILS_SCHEMA.field(0).type)], THUMBNAILS_SCHEMA
            )
        batches.append(thumbnails.filter(pa.array(source.is_alive)))
    return _concatenate(batches, THUMBNAILS_SCHEMA)


def _merge_deletes(sources: Sequence[_Source]) -> pa.RecordBatch:
    """Keep the newest delete of each id, unless the sources hold a newer entry of that id."""
    newest: dict[str, int] = {}
    for source in sources:
        for columns in (source.segment.contents, source.segment.deletes):
            if columns is None:
                continue
            ids, offsets = columns.column("content_id").to_pylist(), columns.column("offset").to_pylist()
            for content_id, offset in zip(ids, offsets, strict=True):
                newest[content_id] = max(offset, newest.get(content_id, -1))
    batches = [s.segment.deletes for s in sources if s.segment.deletes is not None]
    kept = [deletes.filter(pa.array(_is_newest(deletes, newest), pa.bool_())) for deletes in batches]
    return _concatenate(kept, DELETES_SCHEMA)


def _is_newest(deletes: pa.RecordBatch, newest: dict[str, int]) -> list[bool]:
    pairs = zip(deletes.column("content_id").to_pylist(), deletes.column("offset").to_pylist(), strict=True)
    return [newest[content_id] == offset for content_id, offset in pairs]


def _merge_vectors(sources: Sequence[_Source]) -> dict[Modality, ModalityVectors]:
    parts: dict[Modality, list[ModalityVectors]] = {modality: [] for modality in MODALITIES}
    for source in sources:
        for modality, vectors in source.segment.read_vectors().items():
            keep = source.is_alive[vectors.rows]
            _refuse_not_finite(source.segment, modality, vectors.embeddings[keep])
            rows = source.row_map[vectors.rows[keep]].astype(np.uint32)
            parts[modality].append(ModalityVectors(vectors.embeddings[keep], rows))
    return {m: merged for m, p in parts.items() if (merged := _join_vectors(p)) is not None}


def _refuse_not_finite(segment: Segment, modality: Modality, embeddings: NDArray[np.float16]) -> None:
    num_broken = int(np.count_nonzero(~np.isfinite(embeddings).all(axis=1)))
    if num_broken:
        raise BrokenEmbeddings(segment.segment_id, modality, num_broken)


def _join_vectors(parts: Sequence[ModalityVectors]) -> ModalityVectors | None:
    if sum(len(part.rows) for part in parts) == 0:
        return None
    return ModalityVectors(
        np.concatenate([part.embeddings for part in parts]), np.concatenate([part.rows for part in parts])
    )


def _concatenate(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    """Join the batches. Raises `MemoryError` if a column exceeds 2 GiB: Arrow would cut it in two."""
    table = joined(batches, schema).combine_chunks()
    whole = table.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]
    if len(whole) > 1:
        raise MemoryError("a merged column would exceed 2 GiB")
    return whole[0]
