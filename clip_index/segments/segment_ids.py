"""The ids of a segment: which rows and remembered deletes it has, without its vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_index.errors import DamagedFile
from clip_index.generations.manifest import SegmentEntry
from clip_index.segments.columns import CONTENTS_SCHEMA, DELETES_SCHEMA, DIGEST, completed, open_columns
from clip_index.segments.id_table import entries_in_common, find_entries, open_id_table
from clip_index.segments.row_digests import RowDigests
from clip_index.segments.segment_files import CONTENTS, DELETES, DIGESTS, IDS
from clip_index.segments.segment_parts import MappedParts


@dataclass(frozen=True, slots=True)
class FoundEntry:
    """What a segment knows of an id: a row (dead or alive) or a remembered delete (`row` is None)."""

    segment_id: str
    row: int | None
    offset: int
    floor: int | None


class SegmentIds:
    """Immutable and thread-safe. It opens `PARTS_OF_IDS`."""

    def __init__(self, parts: MappedParts, entry: SegmentEntry) -> None:
        self._segment_id = entry.segment_id
        self._num_rows = entry.num_contents
        self.contents = map_columns(parts, CONTENTS, CONTENTS_SCHEMA)
        self.deletes = map_columns(parts, DELETES, DELETES_SCHEMA) if DELETES in parts else None
        self._ids = open_id_table(parts.map(IDS))
        self._digests = _open_digests(parts, self.contents)

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """The hashes of all ids, of rows and of remembered deletes, ascending, (n,)."""
        hashes: NDArray[np.uint64] = self._ids[0]
        return hashes

    def find_ids(self, ids: Sequence[str], hashes: NDArray[np.uint64]) -> Iterator[tuple[int, FoundEntry]]:
        """Yield `(position in ids, entry)` for every entry of one of the ids."""
        for position, entry in find_entries(self._ids, hashes):
            found = self._entry(entry)
            if self._entry_id(entry) == ids[position]:
                yield position, found

    def find_digest(self, digest: bytes) -> Iterator[int]:
        """Yield the rows, dead ones included, that were made of the bytes with this digest."""
        return iter(()) if self._digests is None else self._digests.rows_of(digest)

    def rows_in_common(self, other: SegmentIds) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of both, (n,) each, that have the same content id; dead ones are included."""
        rows, other_rows = entries_in_common(self._ids, other._ids)
        if not len(rows):
            return rows, other_rows
        are_rows = (rows < self._num_rows) & (other_rows < other._num_rows)  # behind these are deletes
        rows, other_rows = rows[are_rows], other_rows[are_rows]
        are_equal = np.asarray(pc.equal(self._ids_of(rows), other._ids_of(other_rows)))
        return rows[are_equal], other_rows[are_equal]

    def _ids_of(self, rows: NDArray[np.int64]) -> pa.Array:
        return self.contents.column("content_id").take(pa.array(rows))

    def _entry(self, entry: int) -> FoundEntry:
        columns, row = self._columns_and_row(entry)
        offset, floor = columns.column("offset")[row].as_py(), columns.column("floor")[row].as_py()
        return FoundEntry(self._segment_id, row if columns is self.contents else None, offset, floor)

    def _entry_id(self, entry: int) -> str:
        columns, row = self._columns_and_row(entry)
        return str(columns.column("content_id")[row])

    def _columns_and_row(self, entry: int) -> tuple[pa.RecordBatch, int]:
        if entry < self._num_rows:
            return self.contents, entry
        return self.deletes, entry - self._num_rows


def map_columns(parts: MappedParts, name: str, schema: pa.Schema) -> pa.RecordBatch:
    """Map a part that holds columns; `DamagedFile` if it does not."""
    part = parts.map(name)
    try:
        return completed(open_columns(part), schema)
    except pa.ArrowInvalid as error:
        raise DamagedFile(part.path, str(error)) from error


def _open_digests(parts: MappedParts, contents: pa.RecordBatch) -> RowDigests | None:
    """Open the digests, which segments of earlier releases lack."""
    if DIGESTS not in parts or DIGEST.name not in contents.schema.names:
        return None
    return RowDigests(open_id_table(parts.map(DIGESTS)), contents.column(DIGEST.name))
