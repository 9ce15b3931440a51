"""The columns of a segment: one Arrow row per content, memory-mapped.

`contents.arrow` and `deletes.arrow` are uncompressed Arrow IPC files of one record
batch, so that opening one reads a footer and a value is read where it lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from clip_index.content import EncodedContent, MetadataValue

CONTENTS_SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("floor", pa.int64()),
        pa.field("version", pa.int64()),
        pa.field("modality", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("owner_id", pa.string()),
        pa.field("occurred_at_ms", pa.int64(), nullable=False),
        pa.field("link", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("metadata_text", pa.map_(pa.string(), pa.string())),
        pa.field("metadata_number", pa.map_(pa.string(), pa.float64())),
        pa.field("metadata_boolean", pa.map_(pa.string(), pa.bool_())),
    ]
)
DELETES_SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("floor", pa.int64(), nullable=False),
    ]
)
THUMBNAILS_SCHEMA = pa.schema([pa.field("thumbnail", pa.large_binary())])


@dataclass(frozen=True, slots=True)
class BufferedContent:
    """A live content on its way into a segment; `floor` is its id's after this event."""

    content: EncodedContent
    floor: int | None


@dataclass(frozen=True, slots=True)
class RememberedDelete:
    """A deleted id whose floor must outlive it."""

    content_id: str
    offset: int
    floor: int


def contents_batch(rows: Sequence[BufferedContent]) -> pa.RecordBatch:
    """Lay rows out column by column; a dictionary for each row would cost as much again."""
    columns = _columns_of(rows)
    arrays = [pa.array(columns[column.name], column.type) for column in CONTENTS_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=CONTENTS_SCHEMA)


def deletes_batch(deletes: Sequence[RememberedDelete]) -> pa.RecordBatch:
    fields = [{"content_id": d.content_id, "offset": d.offset, "floor": d.floor} for d in deletes]
    return pa.RecordBatch.from_pylist(fields, DELETES_SCHEMA)


def thumbnails_batch(rows: Sequence[BufferedContent]) -> pa.RecordBatch:
    fields = [{"thumbnail": row.content.thumbnail} for row in rows]
    return pa.RecordBatch.from_pylist(fields, THUMBNAILS_SCHEMA)


def write_columns(path: Path, batch: pa.RecordBatch) -> None:
    """Write one record batch as an Arrow IPC file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def open_columns(path: Path) -> pa.RecordBatch:
    """Map the file's one record batch without copying it."""
    with pa.memory_map(str(path), "rb") as source, pa.ipc.open_file(source) as reader:
        return reader.get_batch(0)


def _columns_of(rows: Sequence[BufferedContent]) -> dict[str, list[Any]]:
    contents = [row.content for row in rows]
    metadata = [_split_metadata(content.metadata) for content in contents]
    return {
        "content_id": [content.content_id for content in contents],
        "offset": [content.offset for content in contents],
        "floor": [row.floor for row in rows],
        "version": [content.version for content in contents],
        "modality": [content.modality for content in contents],
        "source": [content.source for content in contents],
        "owner_id": [content.owner_id for content in contents],
        "occurred_at_ms": [content.occurred_at_ms for content in contents],
        "link": [content.link for content in contents],
        "text": [content.text for content in contents],
        "metadata_text": [split.texts for split in metadata],
        "metadata_number": [split.numbers for split in metadata],
        "metadata_boolean": [split.booleans for split in metadata],
    }


class _Metadata(NamedTuple):
    """Metadata by the type of its values, as Arrow's maps want it."""

    texts: Sequence[tuple[str, str]] = ()
    numbers: Sequence[tuple[str, float]] = ()
    booleans: Sequence[tuple[str, bool]] = ()


_NO_METADATA = _Metadata()


def _split_metadata(metadata: Mapping[str, MetadataValue]) -> _Metadata:
    if not metadata:
        return _NO_METADATA
    texts: list[tuple[str, str]] = []
    numbers: list[tuple[str, float]] = []
    booleans: list[tuple[str, bool]] = []
    for key, value in metadata.items():
        if isinstance(value, bool):
            booleans.append((key, value))
        elif isinstance(value, str):
            texts.append((key, value))
        else:
            numbers.append((key, float(value)))
    return _Metadata(texts, numbers, booleans)


def count_column(column: pa.Array) -> pa.Table:
    """Return a table of each `value` of a column, null apart, with its `count`."""
    counted = pc.value_counts(column.drop_null())
    return pa.table({"value": counted.field("values"), "count": counted.field("counts")})
