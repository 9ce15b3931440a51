"""Refuses Avro data whose enum or union indices are out of range.

fastavro counts a negative index from the end, as Python does. So one flipped bit turns the first symbol
of a two-symbol enum into the second: silently, an upsert becomes a delete. Therefore the encoded datum is
walked once, over its lengths and indices alone, before fastavro reads it. The walk also counts the items of
arrays and maps, because fastavro would read millions of equal keys into a map of one.

Nearly every length and index is a single byte. The walks test for that first, because calling `_read_long`
every time would take as long as fastavro itself does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from schemas.errors import BadEvent
from schemas.validation import MAX_LIST_TEXTS, MAX_METADATA_ENTRIES, too_long_list, too_many_entries

Walk: TypeAlias = Callable[[bytes, int], int]
"""Steps over the value that begins at a position, and returns the position where it ends.

Raises ValueError for an impossible index or length, and IndexError behind the end of the data.
"""

_CONTINUED = 0x80  # a byte of this value or more is not the last one of its integer
_FIXED_SIZES = {"null": 0, "boolean": 1, "float": 4, "double": 8}


def index_check(parsed: Any) -> Walk:
    """Build the walk over data of a schema that fastavro has parsed."""
    return _build(parsed, {})


def _build(schema: Any, named: dict[str, Walk]) -> Walk:
    if isinstance(schema, list):
        return _walk_union([_build(branch, named) for branch in schema])
    if isinstance(schema, str):
        return named.get(schema) or _walk_primitive(schema)
    kind = schema["type"]
    if kind == "record":
        return _named(
            schema, named, lambda: _walk_record([_build(f["type"], named) for f in schema["fields"]])
        )
    if kind == "enum":
        return _named(schema, named, lambda: _walk_enum(len(schema["symbols"])))
    if kind == "fixed":
        return _named(schema, named, lambda: _walk_fixed(schema["size"]))
    if kind == "array":
        return _walk_blocks(_build(schema["items"], named), MAX_LIST_TEXTS, too_long_list)
    if kind == "map":
        entry = _walk_record([_walk_bytes, _build(schema["values"], named)])
        return _walk_blocks(entry, MAX_METADATA_ENTRIES, too_many_entries)
    return _build(kind, named)


def _named(schema: Any, named: dict[str, Walk], build: Callable[[], Walk]) -> Walk:
    """Build the walk over a named type, which may refer to itself."""
    name = schema["name"]
    named[name] = lambda data, position: walk(data, position)
    walk = build()
    named[name] = walk
    return walk


def _walk_primitive(name: str) -> Walk:
    if name in ("int", "long"):
        return _walk_long
    if name in ("bytes", "string"):
        return _walk_bytes
    return _walk_fixed(_FIXED_SIZES[name])


def _walk_long(data: bytes, position: int) -> int:
    while data[position] >= _CONTINUED:
        position += 1
    return position + 1


def _walk_bytes(data: bytes, position: int) -> int:
    byte = data[position]
    if byte < _CONTINUED and not byte & 1:
        return position + 1 + (byte >> 1)
    size, position = _read_long(data, position)
    if size < 0:
        raise ValueError(f"a length of {size}")
    return position + size


def _walk_fixed(size: int) -> Walk:
    return lambda data, position: position + size


def _walk_record(fields: Sequence[Walk]) -> Walk:
    def walk(data: bytes, position: int) -> int:
        for field in fields:
            position = field(data, position)
        return position

    return walk


def _walk_enum(num_symbols: int) -> Walk:
    return _walk_union([_walk_fixed(0)] * num_symbols)


def _walk_union(branches: Sequence[Walk]) -> Walk:
    one_byte = {index << 1: branch for index, branch in enumerate(branches) if index << 1 < _CONTINUED}

    def walk(data: bytes, position: int) -> int:
        branch = one_byte.get(data[position])
        if branch is not None:
            return branch(data, position + 1)
        index, position = _read_index(data, position, len(branches))
        return branches[index](data, position)

    return walk


def _walk_blocks(item: Walk, max_items: int, refuse: Callable[[int], BadEvent]) -> Walk:
    """Build the walk over an array or a map: blocks of items, each with its count.

    After a negative count the size of the block in bytes follows. `max_items` bounds all blocks together:
    the only map of an event is its metadata, and only a value of the metadata is an array.
    """

    def walk(data: bytes, position: int) -> int:
        num_items = 0
        while data[position] != 0:
            count, position = _read_long(data, position)
            if count == 0:
                return position
            if count < 0:
                count, position = -count, _read_long(data, position)[1]
            if count > len(data) - position:  # an item has a byte at least
                raise ValueError(f"{count} items in {len(data) - position} bytes")
            num_items += count
            if num_items > max_items:
                raise refuse(num_items)
            for _ in range(count):
                position = item(data, position)
        return position + 1

    return walk


def _read_index(data: bytes, position: int, limit: int) -> tuple[int, int]:
    index, position = _read_long(data, position)
    if not 0 <= index < limit:
        raise ValueError(f"index {index} of {limit}")
    return index, position


def _read_long(data: bytes, position: int) -> tuple[int, int]:
    """Read a zig-zag variable-length integer; return it and the position where it ends.

    An integer of more than 64 bits is refused at once, because the time that Python needs for it grows with
    the square of its length.
    """
    number = 0
    for shift in range(0, 64, 7):
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < _CONTINUED:
            return (number >> 1) ^ -(number & 1), position
    raise ValueError("a number of more than 64 bits")
