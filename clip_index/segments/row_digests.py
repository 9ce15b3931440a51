"""The digests of a segment's rows: which rows were made of the same bytes.

The writer asks for every upload, so a look-up goes through views of the mapped file: that takes a
microsecond, where NumPy's search takes several.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import pyarrow as pa

from clip_index.segments.id_table import IdTable


class RowDigests:
    """A sorted table of hashes, and the column that has the digests. Immutable and thread-safe."""

    def __init__(self, table: IdTable, column: pa.Array) -> None:
        self._hashes, self._rows = memoryview(table[0]), memoryview(table[1])
        self._column = column

    def rows_of(self, digest: bytes) -> Iterator[int]:
        """Yield the rows, dead ones included, that have this digest."""
        wanted = int.from_bytes(digest[:8], "little")
        index = bisect_left(self._hashes, wanted)
        while index < len(self._hashes) and self._hashes[index] == wanted:
            row = self._rows[index]
            if self._column[row].as_py() == digest:
                yield row
            index += 1
