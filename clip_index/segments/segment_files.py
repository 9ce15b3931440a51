"""Turns rows into the immutable files of a segment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clip_index.content import MODALITIES, Modality
from clip_index.generations.manifest import SegmentEntry, segment_name
from clip_index.segments.columns import (
    DIGEST,
    BufferedContent,
    RememberedDelete,
    contents_batch,
    deletes_batch,
    thumbnails_batch,
    write_columns,
)
from clip_index.segments.id_table import build_id_table, digest_table_from, hash_ids, id_table_from
from clip_index.storage.shard_store import ShardStore
from clip_index.vectors.vector_file import VectorWriter, build_node_map

CONTENTS = "contents.arrow"
DELETES = "deletes.arrow"
THUMBNAILS = "thumbnails.arrow"
IDS = "ids.npy"
OWNERS = "owners.npy"
DIGESTS = "digests.npy"


def vectors_name(modality: Modality) -> str:
    return f"{modality}.faiss"


def nodes_name(modality: Modality) -> str:
    return f"{modality}.nodes.npy"


def effort_name(modality: Modality) -> str:
    """Only beside vectors that lie in inverted lists."""
    return f"{modality}.effort.json"


@dataclass(frozen=True, slots=True)
class ModalityVectors:
    """fp16 embeddings (n, dimension) and the row of the segment that each belongs to, (n,) uint32."""

    embeddings: NDArray[np.float16]
    rows: NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class SegmentRows:
    """Everything that a segment will hold, in the order of its rows.

    An id may stand in `contents` or in `deletes`, never in both.
    """

    contents: pa.RecordBatch
    deletes: pa.RecordBatch
    thumbnails: pa.RecordBatch | None
    vectors: Mapping[Modality, ModalityVectors]


def rows_from_buffer(contents: Sequence[BufferedContent], deletes: Sequence[RememberedDelete]) -> SegmentRows:
    """Lay out what the writer has buffered."""
    has_thumbnails = any(row.content.thumbnail is not None for row in contents)
    return SegmentRows(
        contents=contents_batch(contents),
        deletes=deletes_batch(deletes),
        thumbnails=thumbnails_batch(contents) if has_thumbnails else None,
        vectors={m: vectors for m in MODALITIES if (vectors := _vectors_of(contents, m))},
    )


def _vectors_of(contents: Sequence[BufferedContent], modality: Modality) -> ModalityVectors | None:
    found = [(i, c.content.embeddings) for i, c in enumerate(contents) if c.content.modality == modality]
    if not found:
        return None
    rows = np.repeat(np.array([row for row, _ in found], np.uint32), [len(e) for _, e in found])
    embeddings = np.concatenate([e for _, e in found], dtype=np.float16, casting="same_kind")
    return ModalityVectors(embeddings, rows)


def new_segment_id(writer_epoch: int) -> str:
    return f"{writer_epoch}-{uuid4().hex[:16]}"


def write_segment(
    store: ShardStore, segment_id: str, rows: SegmentRows, write_vectors: VectorWriter
) -> SegmentEntry:
    """Write a segment's files and publish them.

    Either the segment is complete and durable when this returns, or it raises, and whatever is
    left of it is garbage. On a local disk nothing is left.
    """
    name = segment_name(segment_id)
    with _staged_directory(store, name) as directory:
        num_vectors = _write_files(directory, rows, write_vectors)
        digests = store.publish(name)
    return SegmentEntry(
        segment_id,
        num_contents=rows.contents.num_rows,
        num_deletes=rows.deletes.num_rows,
        num_vectors=num_vectors,
        files=digests,
    )


def remove_segment(store: ShardStore, segment_id: str) -> None:
    """Remove what is there of a segment that no manifest names, complete or not."""
    store.remove(segment_name(segment_id))
    store.remove_staged(segment_name(segment_id))


@contextmanager
def _staged_directory(store: ShardStore, name: str) -> Iterator[Path]:
    directory = store.staging_path(name)
    directory.mkdir()
    try:
        yield directory
    finally:
        store.remove_staged(name)  # if the segment was published, nothing is left to remove


def _write_files(directory: Path, rows: SegmentRows, write_vectors: VectorWriter) -> dict[Modality, int]:
    write_columns(directory / CONTENTS, rows.contents)
    if rows.deletes.num_rows:
        write_columns(directory / DELETES, rows.deletes)
    if rows.thumbnails is not None:
        write_columns(directory / THUMBNAILS, rows.thumbnails)
    _write_tables(directory, rows)
    num_vectors: dict[Modality, int] = {}
    for modality, vectors in rows.vectors.items():
        others = next((other.embeddings for m, other in rows.vectors.items() if m != modality), None)
        node_map = build_node_map(vectors.embeddings, vectors.rows)
        np.save(directory / nodes_name(modality), node_map.node_rows, allow_pickle=False)
        write_vectors(directory / vectors_name(modality), node_map.embeddings, others)
        num_vectors[modality] = len(node_map.embeddings)
    return num_vectors


def _write_tables(directory: Path, rows: SegmentRows) -> None:
    """Entries below the number of contents are rows, the ones above remembered deletes."""
    ids = rows.contents.column("content_id").to_pylist() + rows.deletes.column("content_id").to_pylist()
    np.save(directory / IDS, build_id_table(hash_ids(ids), np.arange(len(ids), dtype=np.uint64)))
    owners = id_table_from(enumerate(rows.contents.column("owner_id").to_pylist()))
    if owners.shape[1]:
        np.save(directory / OWNERS, owners, allow_pickle=False)
    if DIGEST.name in rows.contents.schema.names:
        digests = digest_table_from(rows.contents.column(DIGEST.name).to_pylist())
        np.save(directory / DIGESTS, digests, allow_pickle=False)
