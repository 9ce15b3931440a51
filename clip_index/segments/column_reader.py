"""Single contents out of mapped columns, without an Arrow scalar for each value.

A search answer reads tens of contents; through Arrow's own scalars one content costs
ten times as much as through views of the very same buffers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from clip_index.content import MetadataValue, StoredContent

StoredField: TypeAlias = Literal["text", "metadata"]
"""What is read only where it is wanted: long values."""

ALL_FIELDS: frozenset[StoredField] = frozenset({"text", "metadata"})


class ColumnReader:
    """Reads rows of a `contents.arrow`; immutable and thread-safe, keeps the file mapped."""

    def __init__(self, columns: pa.RecordBatch) -> None:
        self._content_id = _Texts(columns.column("content_id"))
        self._modality = _Texts(columns.column("modality"))
        self._source = _Texts(columns.column("source"))
        self._owner_id = _Texts(columns.column("owner_id"))
        self._link = _Texts(columns.column("link"))
        self._text = _Texts(columns.column("text"))
        self._offset = _Integers(columns.column("offset"))
        self._version = _Integers(columns.column("version"))
        self._occurred_at_ms = _Integers(columns.column("occurred_at_ms"))
        self._metadata = [
            _Pairs(columns.column(f"metadata_{kind}")) for kind in ("text", "number", "boolean")
        ]

    def content_id(self, row: int) -> str:
        return str(self._content_id.value(row))

    def recency(self, row: int) -> tuple[int, int]:
        """Greater version, then later time: the rule between shards, whose offsets do not compare."""
        version = self._version.value(row)
        return (-1 if version is None else version, self._occurred_at_ms.value(row) or 0)

    def read(self, row: int, fields: Collection[StoredField] = ALL_FIELDS) -> StoredContent:
        """Read one content; what `fields` leaves out is None or empty."""
        modality: Any = self._modality.value(row)
        return StoredContent(
            content_id=self.content_id(row),
            offset=self._offset.value(row) or 0,
            modality=modality,
            source=self._source.value(row) or "",
            occurred_at_ms=self._occurred_at_ms.value(row) or 0,
            version=self._version.value(row),
            owner_id=self._owner_id.value(row),
            link=self._link.value(row),
            text=self._text.value(row) if "text" in fields else None,
            metadata=self._read_metadata(row) if "metadata" in fields else {},
        )

    def _read_metadata(self, row: int) -> dict[str, MetadataValue]:
        return {key: value for column in self._metadata for key, value in column.pairs(row)}


class _Values:
    """The validity bits that all columns have in common; Arrow's layout, least significant bit first."""

    __slots__ = ("_first", "_validity")

    def __init__(self, array: pa.Array) -> None:
        self._first = array.offset
        validity = array.buffers()[0]
        self._validity = None if validity is None else memoryview(validity)


class _Texts(_Values):
    __slots__ = ("_bytes", "_offsets")

    def __init__(self, array: pa.Array) -> None:
        super().__init__(array)
        _, offsets, data = array.buffers()
        is_large = pa.types.is_large_string(array.type)
        self._offsets = memoryview(offsets).cast("q" if is_large else "i")
        self._bytes = memoryview(data if data is not None else b"")

    def value(self, row: int) -> str | None:
        place, validity, offsets = self._first + row, self._validity, self._offsets
        if validity is not None and not validity[place >> 3] >> (place & 7) & 1:
            return None
        return str(self._bytes[offsets[place] : offsets[place + 1]], "utf-8")


class _Integers(_Values):
    __slots__ = ("_numbers",)

    def __init__(self, array: pa.Array) -> None:
        super().__init__(array)
        self._numbers = memoryview(array.buffers()[1]).cast("q")

    def value(self, row: int) -> int | None:
        place, validity = self._first + row, self._validity
        if validity is not None and not validity[place >> 3] >> (place & 7) & 1:
            return None
        number: int = self._numbers[place]
        return number


class _Pairs:
    """A map column: each row has a range of the keys and items of all rows."""

    __slots__ = ("_first", "_items", "_keys", "_offsets")

    def __init__(self, array: pa.MapArray) -> None:
        self._offsets = memoryview(array.buffers()[1]).cast("i")
        self._first = array.offset
        self._keys, self._items = array.keys, array.items

    def pairs(self, row: int) -> list[tuple[str, MetadataValue]]:
        first, last = self._offsets[self._first + row], self._offsets[self._first + row + 1]
        return [(self._keys[place].as_py(), self._items[place].as_py()) for place in range(first, last)]
