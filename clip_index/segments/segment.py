"""An opened segment: immutable rows, looked up by id and searched by embedding."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_index.content import LONG_FACTS, Derived, Embeddings, Headline, LongFact, Modality, StoredContent
from clip_index.generations.manifest import SegmentEntry, centroids_name
from clip_index.masks.pair_masks import PairMasks
from clip_index.masks.row_masks import RowMasks
from clip_index.masks.time_blocks import TimeBlocks
from clip_index.row_filter import RowFilter
from clip_index.segments.column_reader import ColumnReader
from clip_index.segments.columns import (
    DIGEST,
    THUMBNAILS_SCHEMA,
    count_column,
)
from clip_index.segments.id_table import find_entries, open_id_table
from clip_index.segments.recencies import Recencies, recencies
from clip_index.segments.segment_files import (
    OWNERS,
    THUMBNAILS,
    codes_name,
    effort_name,
    embeddings_name,
    lists_name,
    nodes_name,
    vectors_name,
)
from clip_index.segments.segment_ids import FoundEntry, SegmentIds, map_columns
from clip_index.segments.segment_parts import SegmentParts
from clip_index.storage.bounded_cache import BoundedCache
from clip_index.storage.mapped_array import map_array
from clip_index.storage.shard_store import ShardStore
from clip_index.storage.verified_files import verified_file
from clip_index.vectors.centroid_set import CentroidSet, CentroidSets
from clip_index.vectors.near_lists.effort import UNCALIBRATED, Effort, read_effort
from clip_index.vectors.vector_file import VectorFile

_NUM_CACHED_COUNTS = 8


class Segment:
    """Immutable and thread-safe. Its files must have been verified before."""

    def __init__(self, store: ShardStore, entry: SegmentEntry, sets: CentroidSets | None = None) -> None:
        """Map the files; `FileNotFoundError` if one was collected, `DamagedFile` if unreadable.

        Segments that are opened with the same `sets` have each set of centroids in memory once.
        """
        self.entry = entry
        self.segment_id = entry.segment_id
        parts = SegmentParts(store, entry)
        known_sets = sets or CentroidSets()
        self._ids = SegmentIds(parts, entry)
        self.contents = self._ids.contents
        self.deletes = self._ids.deletes
        self.is_image: NDArray[np.bool_] = np.asarray(pc.equal(self.contents.column("modality"), "image"))
        self._row_masks = RowMasks(self.contents)
        self._value_counts: BoundedCache[str, pa.Table] = BoundedCache(
            _NUM_CACHED_COUNTS, size_of=lambda counts: counts.nbytes
        )
        self._thumbnails = map_columns(parts, THUMBNAILS, THUMBNAILS_SCHEMA) if THUMBNAILS in parts else None
        self._owners = open_id_table(parts.map(OWNERS)) if OWNERS in parts else None
        self.vector_files: Mapping[Modality, VectorFile] = {
            modality: _open_vectors(parts, modality, _open_set(store, entry, modality, known_sets))
            for modality in entry.num_vectors
        }
        self._pair_masks = {
            modality: PairMasks(self._row_masks, file.node_rows)
            for modality, file in self.vector_files.items()
        }

    @cached_property
    def _reader(self) -> ColumnReader:
        """Opened by the first hit. Most small segments are merged before they have one."""
        return ColumnReader(self.contents)

    @cached_property
    def time_blocks(self) -> TimeBlocks:
        return self._row_masks.time_blocks

    @cached_property
    def has_lists(self) -> bool:
        """Whether vectors of it lie in lists, because a merge has made it large."""
        return any(not file.is_flat for file in self.vector_files.values())

    @property
    def num_rows(self) -> int:
        return self.entry.num_contents

    def find_ids(self, ids: Sequence[str], hashes: NDArray[np.uint64]) -> Iterator[tuple[int, FoundEntry]]:
        """Yield `(position in ids, entry)` for every entry of one of the ids."""
        return self._ids.find_ids(ids, hashes)

    def find_owner_rows(self, owner_id: str, owner_hash: NDArray[np.uint64]) -> list[int]:
        """Return the rows of this owner, dead ones included; `owner_hash` has shape (1,)."""
        if self._owners is None:
            return []
        column = self.contents.column("owner_id")
        rows = (row for _, row in find_entries(self._owners, owner_hash))
        return [row for row in rows if column[row].as_py() == owner_id]

    def find_digest(self, digest: bytes) -> Iterator[int]:
        """Yield the rows, dead ones included, that were made of the bytes with this digest."""
        return self._ids.find_digest(digest)

    def offset(self, row: int) -> int:
        return self._reader.offset(row)

    def digest(self, row: int) -> bytes | None:
        """Return the digest of the bytes that a row was made of; None where none was kept."""
        if DIGEST.name not in self.contents.schema.names:
            return None
        digest: bytes | None = self.contents.column(DIGEST.name)[row].as_py()
        return digest

    def derived(self, row: int) -> Derived:
        """Read what was computed from the bytes of a row's content."""
        is_truncated = bool(self.contents.column("is_truncated")[row].as_py())
        return Derived(self.embeddings(row), self.thumbnail(row), is_truncated)

    def content_id(self, row: int) -> str:
        return self._reader.content_id(row)

    def content_ids(self, rows: NDArray[np.int64]) -> pa.Array:
        """Return the content ids of many rows, (n,) strings, without a Python object for each."""
        return self.contents.column("content_id").take(pa.array(rows))

    def recencies(self, rows: NDArray[np.int64]) -> Recencies:
        """Return how new each of some rows is, (n,)."""
        return recencies(self.contents, rows)

    @property
    def id_hashes(self) -> NDArray[np.uint64]:
        """The hashes of all ids, of rows and of remembered deletes, ascending, (n,)."""
        return self._ids.hashes

    def rows_in_common(self, other: Segment) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of both, (n,) each, that have the same content id; dead ones are included."""
        return self._ids.rows_in_common(other._ids)

    def read(self, row: int, long_facts: Collection[LongFact] = LONG_FACTS) -> StoredContent:
        """Read one content. A long fact that is not in `long_facts` is None or empty."""
        return self._reader.read(row, long_facts)

    def headline(self, row: int) -> Headline:
        return self._reader.headline(row)

    def headline_of(self, row: int, content_id: str, modality: Modality) -> Headline:
        """Return the same of a row whose content id and modality are known."""
        return self._reader.headline_of(row, content_id, modality)

    def row_mask(self, row_filter: RowFilter) -> NDArray[np.bool_]:
        """Return which rows, dead ones included, pass a filter: a mask (rows,)."""
        return self._row_masks.find(row_filter)

    def few_rows(self, row_filter: RowFilter) -> NDArray[np.int64] | None:
        """Return the rows, dead ones included, that pass a filter, ascending; None if a mask is cheaper."""
        return self._row_masks.find_few(row_filter)

    def pair_mask(self, modality: Modality, row_filter: RowFilter) -> NDArray[np.bool_] | None:
        """Return which pairs of the modality's node map pass a filter, dead rows included: a mask (pairs,).

        The pairs are in the order of `NodeRows.in_pair_order`. None if the filter reads more than numbers and
        times.
        """
        return self._pair_masks[modality].find(row_filter)

    def rows_pass(
        self, modality: Modality, row_filter: RowFilter, rows: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Return which of some rows, (n,), pass a filter that `pair_mask` has evaluated."""
        return self._pair_masks[modality].holds_at(row_filter, rows)

    def count_values(self, field: str, row_filter: RowFilter | None) -> pa.Table:
        """Return how often each value of a text field occurs in the rows, dead ones included."""

        def build() -> pa.Table:
            column = self.contents.column(field)
            return count_column(column if row_filter is None else column.filter(self.row_mask(row_filter)))

        key = f"{field} {'' if row_filter is None else row_filter.key}"
        return self._value_counts.find_or_build(key, build)

    def thumbnail(self, row: int) -> bytes | None:
        if self._thumbnails is None:
            return None
        thumbnail: bytes | None = self._thumbnails.column("thumbnail")[row].as_py()
        return thumbnail

    def embeddings(self, row: int) -> Embeddings:
        """Return the row's embeddings, (windows, dimension) float32."""
        file = self.vector_files["image" if self.is_image[row] else "text"]
        return file.vectors.embeddings_of(file.node_rows.nodes_of(row))

    @property
    def thumbnails(self) -> pa.RecordBatch | None:
        return self._thumbnails


def _open_vectors(parts: SegmentParts, modality: Modality, shared: CentroidSet | None) -> VectorFile:
    node_rows = map_array(parts.map(nodes_name(modality)))
    exact = parts.map(embeddings_name(modality)) if embeddings_name(modality) in parts else None
    codes = parts.map(codes_name(modality)) if codes_name(modality) in parts else None
    listed = parts.map(lists_name(modality)) if lists_name(modality) in parts else None
    vectors, effort = parts.map(vectors_name(modality)), _read_effort(parts, modality)
    return VectorFile(vectors, node_rows, effort, shared, exact, codes, listed)


def _open_set(
    store: ShardStore, entry: SegmentEntry, modality: Modality, sets: CentroidSets
) -> CentroidSet | None:
    digest = entry.centroids.get(modality)
    if digest is None:
        return None
    return sets.find_or_open(digest, lambda: verified_file(store, centroids_name(digest), digest))


def _read_effort(parts: SegmentParts, modality: Modality) -> Effort:
    if effort_name(modality) not in parts:
        return UNCALIBRATED
    return read_effort(parts.map(effort_name(modality)))
