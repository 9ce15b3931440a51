"""The columns of a segment: one Arrow row per content, memory-mapped.

`contents.arrow` and `deletes.arrow` are uncompressed Arrow IPC files of one record batch.
Opening one reads a footer only, and a value is read where it lies in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from operator import attrgetter
from types import MappingProxyType, NoneType
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

from clip_index.content import FACT_NAMES, LONG_FACTS, ContentFacts, EncodedContent, MetadataValue
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.pack import PartFile

_FACT_HINTS = get_type_hints(ContentFacts)
MAP_FACTS = frozenset(name for name, hint in _FACT_HINTS.items() if get_origin(hint) is Mapping)
MAP_TYPES: Mapping[str, pa.DataType] = MappingProxyType(
    {
        "text": pa.string(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "texts": pa.list_(pa.string()),
    }
)
"""A fact that is a mapping has a map column for each type of its values: `metadata_text` and so on."""

_TYPES: Mapping[type, pa.DataType] = MappingProxyType({str: pa.string(), int: pa.int64(), bool: pa.bool_()})
_HAVE_DEFAULTS = frozenset(
    one.name for one in fields(ContentFacts) if (one.default, one.default_factory) != (MISSING, MISSING)
)


def _fact_columns(name: str) -> list[pa.Field]:
    """Derive the columns of a fact from its type. A fact that has a default may be null."""
    if name in MAP_FACTS:
        return [pa.field(f"{name}_{kind}", pa.map_(pa.string(), type_)) for kind, type_ in MAP_TYPES.items()]
    hint = _FACT_HINTS[name]
    type_ = _TYPES[get_args(hint)[0] if NoneType in get_args(hint) else hint]
    is_long = name in LONG_FACTS
    return [pa.field(name, pa.large_string() if is_long else type_, nullable=name in _HAVE_DEFAULTS)]


CONTENTS_SCHEMA = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("floor", pa.int64()),
        pa.field("version", pa.int64()),
        pa.field("modality", pa.string(), nullable=False),
        *(column for name in FACT_NAMES for column in _fact_columns(name)),
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
    """A live content on its way into a segment. `floor` is the floor of its id after this event."""

    content: EncodedContent
    floor: int | None


@dataclass(frozen=True, slots=True)
class RememberedDelete:
    """A deleted id. Its floor must outlive it, so that a late older version stays deleted."""

    content_id: str
    offset: int
    floor: int


def contents_batch(rows: Sequence[BufferedContent]) -> pa.RecordBatch:
    """Lay rows out column by column. A dictionary for each row would double the cost."""
    columns = _columns_of(rows)
    arrays = [pa.array(columns[column.name], column.type) for column in CONTENTS_SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=CONTENTS_SCHEMA)


def deletes_batch(deletes: Sequence[RememberedDelete]) -> pa.RecordBatch:
    fields = [{"content_id": d.content_id, "offset": d.offset, "floor": d.floor} for d in deletes]
    return pa.RecordBatch.from_pylist(fields, DELETES_SCHEMA)


def thumbnails_batch(rows: Sequence[BufferedContent]) -> pa.RecordBatch:
    fields = [{"thumbnail": row.content.thumbnail} for row in rows]
    return pa.RecordBatch.from_pylist(fields, THUMBNAILS_SCHEMA)


def write_columns(file: PartFile, batch: pa.RecordBatch) -> None:
    """Write one record batch as an Arrow IPC file."""
    with pa.PythonFile(file, "w") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def open_columns(part: MappedPart) -> pa.RecordBatch:
    """Open the one record batch of an Arrow IPC file without copying it."""
    with pa.ipc.open_file(part.data) as reader:
        return reader.get_batch(0)


def completed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with every column of the schema, in its order; absent ones are null.

    A segment that an earlier release wrote lacks the columns that were added since. Columns that the
    schema does not know, which a later release wrote, stay behind the others.
    """
    if batch.schema.names[: len(schema)] == schema.names:
        return batch
    known = [
        batch.column(field.name) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    others = [field for field in batch.schema if field.name not in schema.names]
    arrays = [*known, *(batch.column(field.name) for field in others)]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([*schema, *others]))


def joined(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """Join batches of any releases; a column that only some of them have is null in the others."""
    fields = {field.name: field for batch in batches for field in batch.schema}
    whole = pa.schema([*schema, *(field for name, field in fields.items() if name not in schema.names)])
    return pa.Table.from_batches([completed(batch, whole) for batch in batches], whole)


def _columns_of(rows: Sequence[BufferedContent]) -> dict[str, list[Any]]:
    contents = [row.content for row in rows]
    columns: dict[str, list[Any]] = {
        "content_id": [content.content_id for content in contents],
        "offset": [content.offset for content in contents],
        "floor": [row.floor for row in rows],
        "version": [content.version for content in contents],
        "modality": [content.modality for content in contents],
    }
    facts = [content.facts for content in contents]
    for name in FACT_NAMES:
        values = list(map(attrgetter(name), facts))
        columns.update(_map_columns(name, values) if name in MAP_FACTS else {name: values})
    return columns


def _map_columns(name: str, mappings: Sequence[Mapping[str, MetadataValue]]) -> dict[str, list[Any]]:
    split = [_split(mapping) for mapping in mappings]
    return {
        f"{name}_text": [values.texts for values in split],
        f"{name}_number": [values.numbers for values in split],
        f"{name}_boolean": [values.booleans for values in split],
        f"{name}_texts": [values.lists for values in split],
    }


class _Pairs(NamedTuple):
    """The pairs of a mapping by the type of their values, as Arrow's maps want them."""

    texts: Sequence[tuple[str, str]] = ()
    numbers: Sequence[tuple[str, float]] = ()
    booleans: Sequence[tuple[str, bool]] = ()
    lists: Sequence[tuple[str, Sequence[str]]] = ()


_NO_PAIRS = _Pairs()


def _split(mapping: Mapping[str, MetadataValue]) -> _Pairs:
    if not mapping:
        return _NO_PAIRS
    texts: list[tuple[str, str]] = []
    numbers: list[tuple[str, float]] = []
    booleans: list[tuple[str, bool]] = []
    lists: list[tuple[str, Sequence[str]]] = []
    for key, value in mapping.items():
        if isinstance(value, bool):
            booleans.append((key, value))
        elif isinstance(value, str):
            texts.append((key, value))
        elif isinstance(value, tuple):
            lists.append((key, value))
        else:
            numbers.append((key, float(value)))
    return _Pairs(texts, numbers, booleans, lists)


def count_column(column: pa.Array) -> pa.Table:
    """Return a table of each `value` of a column with its `count`. Null is left out."""
    counted = pc.value_counts(column.drop_null())
    return pa.table({"value": counted.field("values"), "count": counted.field("counts")})
