"""Single contents out of mapped columns, without an Arrow scalar for each value.

A search answer reads tens of contents. Reading a content through Arrow's own scalars takes
ten times as long as reading it through views of the same buffers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

import pyarrow as pa

from clip_index.content import (
    FACT_NAMES,
    LONG_FACTS,
    ContentFacts,
    Headline,
    LongFact,
    MetadataValue,
    Modality,
    StoredContent,
)
from clip_index.segments.columns import MAP_FACTS, MAP_TYPES


class _Column(Protocol):
    def value(self, row: int) -> Any: ...


class ColumnReader:
    """Reads rows of a `contents.arrow` and keeps the file mapped. Immutable and thread-safe."""

    def __init__(self, columns: pa.RecordBatch) -> None:
        self._content_id = _open_column(columns.column("content_id"))
        self._modality = _open_column(columns.column("modality"))
        self._offset = _open_column(columns.column("offset"))
        self._version = _open_column(columns.column("version"))
        self._occurred_at_ms = _open_column(columns.column("occurred_at_ms"))
        read_fact = {name: _open_fact(columns, name).value for name in FACT_NAMES}
        self._short_facts = [(name, read) for name, read in read_fact.items() if name not in LONG_FACTS]
        self._long_facts = {name: read_fact[name] for name in LONG_FACTS}
        self._source, self._owner_id, self._link, self._title = (
            read_fact[name] for name in ("source", "owner_id", "link", "title")
        )

    def content_id(self, row: int) -> str:
        return str(self._content_id.value(row))

    def offset(self, row: int) -> int:
        return self._offset.value(row) or 0

    def headline(self, row: int) -> Headline:
        """Read what every answer shows of one content."""
        modality: Any = self._modality.value(row)
        return self.headline_of(row, self.content_id(row), modality)

    def headline_of(self, row: int, content_id: str, modality: Modality) -> Headline:
        """Read the same of a content whose id and modality are known: they are a third of the work."""
        return Headline(
            content_id,
            modality,
            self._source(row),
            self._owner_id(row),
            self._occurred_at_ms.value(row) or 0,
            self._link(row),
            self._title(row),
            self._version.value(row),
        )

    def read(self, row: int, long_facts: Collection[LongFact] = LONG_FACTS) -> StoredContent:
        """Read one content. A long fact that is not in `long_facts` is None or empty."""
        content_id: Any = self._content_id.value(row)
        modality: Any = self._modality.value(row)
        facts = {name: read(row) for name, read in self._short_facts}
        for name in long_facts:
            facts[name] = self._long_facts[name](row)
        return StoredContent(
            content_id,
            self._offset.value(row) or 0,
            modality,
            self._version.value(row),
            ContentFacts(**facts),
        )


def _open_fact(columns: pa.RecordBatch, name: str) -> _Column:
    if name in MAP_FACTS:
        return _Mapping([_Pairs(columns.column(f"{name}_{kind}")) for kind in MAP_TYPES])
    return _open_column(columns.column(name))


def _open_column(column: pa.Array) -> _Column:
    if column.null_count == len(column) and not pa.types.is_boolean(column.type):
        return _Nulls()
    if pa.types.is_integer(column.type):
        return _Integers(column)
    return _Booleans(column) if pa.types.is_boolean(column.type) else _Texts(column)


class _Nulls:
    """A column without any value, such as the owners of contents that have none."""

    __slots__ = ()

    def value(self, _row: int) -> None:
        return None


class _Values:
    """The validity bits that all columns have: Arrow's layout, least significant bit first."""

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
        index, validity, offsets = self._first + row, self._validity, self._offsets
        if validity is not None and not validity[index >> 3] >> (index & 7) & 1:
            return None
        # `str(…, "utf-8")` of a view would take a fifth longer.
        return self._bytes[offsets[index] : offsets[index + 1]].tobytes().decode()


class _Integers(_Values):
    __slots__ = ("_numbers",)

    def __init__(self, array: pa.Array) -> None:
        super().__init__(array)
        self._numbers = memoryview(array.buffers()[1]).cast("q")

    def value(self, row: int) -> int | None:
        index, validity = self._first + row, self._validity
        if validity is not None and not validity[index >> 3] >> (index & 7) & 1:
            return None
        number: int = self._numbers[index]
        return number


class _Booleans(_Values):
    """Null reads as False."""

    __slots__ = ("_bits",)

    def __init__(self, array: pa.Array) -> None:
        super().__init__(array)
        self._bits = memoryview(array.buffers()[1])

    def value(self, row: int) -> bool:
        index, validity = self._first + row, self._validity
        if validity is not None and not validity[index >> 3] >> (index & 7) & 1:
            return False
        return bool(self._bits[index >> 3] >> (index & 7) & 1)


class _Mapping:
    """A mapping, whose pairs lie in a map column for each type of their values."""

    __slots__ = ("_columns",)

    def __init__(self, columns: Sequence[_Pairs]) -> None:
        self._columns = columns

    def value(self, row: int) -> dict[str, MetadataValue]:
        return {key: value for column in self._columns for key, value in column.pairs(row)}


class _Pairs:
    """A map column: each row has a range of the keys and items of all rows."""

    __slots__ = ("_first", "_items", "_keys", "_offsets")

    def __init__(self, array: pa.MapArray) -> None:
        self._offsets = memoryview(array.buffers()[1]).cast("i")
        self._first = array.offset
        self._keys, self._items = array.keys, array.items

    def pairs(self, row: int) -> list[tuple[str, MetadataValue]]:
        first, last = self._offsets[self._first + row], self._offsets[self._first + row + 1]
        return [(self._keys[index].as_py(), _from_arrow(self._items[index])) for index in range(first, last)]


def _from_arrow(scalar: pa.Scalar) -> MetadataValue:
    value = scalar.as_py()
    return tuple(value) if isinstance(value, list) else value
