"""Turns rows into the one immutable file of a segment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clip_index.content import MODALITIES, Modality
from clip_index.generations.manifest import (
    EMBEDDINGS_SUFFIX,
    SegmentEntry,
    SegmentPack,
    centroids_name,
    pack_name,
)
from clip_index.segments.columns import (
    DIGEST,
    BufferedContent,
    RememberedDelete,
    contents_batch,
    deletes_batch,
    thumbnails_batch,
    write_columns,
)
from clip_index.segments.id_table import build_id_table, hash_column, table_of_column, table_of_digests
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.pack import PackPart, PackWriter
from clip_index.storage.shard_store import ShardStore
from clip_index.vectors.centroid_set import KnownLists
from clip_index.vectors.near_lists.effort import write_effort
from clip_index.vectors.vector_file import NodeMap, VectorWriter, WrittenLists, build_node_map

CONTENTS = "contents.arrow"
DELETES = "deletes.arrow"
THUMBNAILS = "thumbnails.arrow"
IDS = "ids.npy"
OWNERS = "owners.npy"
DIGESTS = "digests.npy"
PARTS_OF_IDS = (CONTENTS, DELETES, IDS, DIGESTS)
"""What look-ups need."""
MIN_BYTES_FOR_PART_DIGESTS = 2**20
"""Of a smaller pack the parts of the ids have no digests of their own: it is soon verified as a whole, and
every commit writes again what the manifest says of each segment."""


def vectors_name(modality: Modality) -> str:
    return f"{modality}.faiss"


def nodes_name(modality: Modality) -> str:
    return f"{modality}.nodes.npy"


def effort_name(modality: Modality) -> str:
    """Only beside vectors that lie in inverted lists."""
    return f"{modality}.effort.json"


def embeddings_name(modality: Modality) -> str:
    """Only beside quantised lists."""
    return f"{modality}{EMBEDDINGS_SUFFIX}"


def codes_name(modality: Modality) -> str:
    """Only beside lists of fp16 embeddings around a shared set of centroids that has a codebook.

    Former releases wrote codes as `<modality>.codes.npy` and `<modality>.pca_codes.npy`, which are not read.
    """
    return f"{modality}.scan_codes.npy"


def lists_name(modality: Modality) -> str:
    """Only beside flat vectors whose lists around a shared set of centroids are known."""
    return f"{modality}.lists.npy"


@dataclass(frozen=True, slots=True)
class ModalityVectors:
    """fp16 embeddings (n, dimension) and the row of the segment that each belongs to, (n,) uint32."""

    embeddings: NDArray[np.float16]
    rows: NDArray[np.uint32]
    known: KnownLists | None = None
    """The lists that the embeddings lie in already. Beside flat vectors they are stored if all are known."""


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
    """Write a segment's pack and publish it.

    Either the segment is complete and durable when this returns, or it raises, and whatever is
    left of it is garbage. On a local disk nothing is left.
    """
    name = pack_name(segment_id)
    try:
        with PackWriter(store.staging_path(name)) as pack:
            written = _write_parts(pack, rows, write_vectors)
        _publish_shared(store, written)
        digest = store.publish(name)
    finally:
        store.remove_staged(name)  # if the segment was published, nothing is left to remove
    return SegmentEntry(
        segment_id,
        num_contents=rows.contents.num_rows,
        num_deletes=rows.deletes.num_rows,
        num_vectors={modality: vectors.num_nodes for modality, vectors in written.items()},
        pack=SegmentPack(digest, _with_digests(pack.parts, digest.size_bytes)),
        centroids={modality: vectors.around for modality, vectors in written.items() if vectors.around},
    )


def _with_digests(parts: Mapping[str, PackPart], pack_bytes: int) -> dict[str, PackPart]:
    """Keep the digests of the parts that a takeover verifies before the rest."""
    kept = PARTS_OF_IDS if pack_bytes >= MIN_BYTES_FOR_PART_DIGESTS else ()
    return {name: part if name in kept else replace(part, xxh3_128=None) for name, part in parts.items()}


def remove_segment(store: ShardStore, segment_id: str) -> None:
    """Remove what is there of a segment that no manifest names, complete or not."""
    store.remove(pack_name(segment_id))
    store.remove_staged(pack_name(segment_id))


@dataclass(frozen=True, slots=True)
class _WrittenVectors:
    """How many distinct embeddings a modality has, and its lists, if it has any.

    `around` is the set of centroids that the lists share, or that flat vectors have lists around.
    """

    num_nodes: int
    lists: WrittenLists | None
    around: FileDigest | None


def _publish_shared(store: ShardStore, written: Mapping[Modality, _WrittenVectors]) -> None:
    """Write the sets of centroids that the lists share. Those of flat vectors are in the shard already.

    One that is there is written again. A former owner of the shard may be in the middle of its collection,
    and may have found the file to be old and unused: it looks at the age again before it removes the file.

    Each shard has a copy of its own. So its generations need nothing of other shards, whose writers
    collect garbage as they like.
    """
    for vectors in written.values():
        if vectors.lists is not None and (file := vectors.lists.shared) is not None:
            store.renew(centroids_name(file.digest), file.data)


def _write_parts(
    pack: PackWriter, rows: SegmentRows, write_vectors: VectorWriter
) -> dict[Modality, _WrittenVectors]:
    _write_columns(pack, CONTENTS, rows.contents)
    if rows.deletes.num_rows:
        _write_columns(pack, DELETES, rows.deletes)
    if rows.thumbnails is not None:
        _write_columns(pack, THUMBNAILS, rows.thumbnails)
    _write_tables(pack, rows)
    node_maps = {m: build_node_map(v.embeddings, v.rows, v.known) for m, v in rows.vectors.items()}
    return {modality: _write_vectors(pack, node_maps, modality, write_vectors) for modality in node_maps}


def _write_vectors(
    pack: PackWriter, node_maps: Mapping[Modality, NodeMap], modality: Modality, write_vectors: VectorWriter
) -> _WrittenVectors:
    """Write the vectors of a modality with what belongs to them."""
    node_map = node_maps[modality]
    others = next((other.embeddings for m, other in node_maps.items() if m != modality), None)
    _write_array(pack, nodes_name(modality), node_map.node_rows)
    with pack.part(vectors_name(modality)) as file:
        lists = write_vectors(file, node_map.embeddings, others, modality, node_map.known)
    if lists is None:
        return _WrittenVectors(len(node_map.embeddings), None, _write_known(pack, modality, node_map.known))
    if lists.is_quantised:
        _write_array(pack, embeddings_name(modality), node_map.embeddings)
    with pack.part(effort_name(modality)) as file:
        write_effort(file, lists.effort)
    if lists.write_codes is not None:
        with pack.part(codes_name(modality)) as file:
            lists.write_codes(file)
    return _WrittenVectors(len(node_map.embeddings), lists, lists.shared.digest if lists.shared else None)


def _write_known(pack: PackWriter, modality: Modality, known: KnownLists | None) -> FileDigest | None:
    """Write the lists of flat vectors if all of them are known; return the set that they lie around."""
    if known is None or (known.lists < 0).any():
        return None
    _write_array(pack, lists_name(modality), known.lists.astype(np.uint32))
    return known.digest


def _write_tables(pack: PackWriter, rows: SegmentRows) -> None:
    """Entries below the number of contents are rows, the ones above remembered deletes."""
    ids = [hash_column(columns.column("content_id")) for columns in (rows.contents, rows.deletes)]
    hashes = np.concatenate(ids)
    _write_array(pack, IDS, build_id_table(hashes, np.arange(len(hashes), dtype=np.uint64)))
    owners = table_of_column(rows.contents.column("owner_id"))
    if owners.shape[1]:
        _write_array(pack, OWNERS, owners)
    if DIGEST.name in rows.contents.schema.names:
        _write_array(pack, DIGESTS, table_of_digests(rows.contents.column(DIGEST.name)))


def _write_columns(pack: PackWriter, name: str, batch: pa.RecordBatch) -> None:
    with pack.part(name) as file:
        write_columns(file, batch)


def _write_array(pack: PackWriter, name: str, array: NDArray[Any]) -> None:
    with pack.part(name) as file:
        np.save(file, array, allow_pickle=False)
