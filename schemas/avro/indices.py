"""Refuses Avro data whose enum or union indices are out of range.

fastavro counts a negative index from the end, as Python does. So one flipped bit turns the first symbol
of a two-symbol enum into the second: silently, an upsert becomes a delete. Therefore the encoded datum is
walked once, over its lengths and indices alone, before fastavro reads it. The walk also counts the items of
arrays and maps, because fastavro would read millions of equal keys into a map of one.

Nearly every length and index is a single byte. The walks test for that first, because calling `_read_long`
every time would take as long as fastavro itself does.
"""

from __future__ import annotations

import sys
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


def index_check(parsed: Any, *, is_event: bool = True) -> Walk:
    """Build the walk over data of a schema that fastavro has parsed.

    The lists and maps of our own events have limits; those of another schema end where the data do.
    """
    if is_event:
        return _WalkBuilder(MAX_LIST_TEXTS, MAX_METADATA_ENTRIES).build(parsed)
    return _WalkBuilder(sys.maxsize, sys.maxsize).build(parsed)


class _WalkBuilder:
    """Builds the walks of one schema, whose named types may be named again."""

    def __init__(self, max_list_items: int, max_map_entries: int) -> None:
        self._max_list_items = max_list_items
        self._max_map_entries = max_map_entries
        self._named_walks: dict[str, Walk] = {}

    def build(self, schema: Any) -> Walk:
        if isinstance(schema, list):
            return _walk_union([self.build(branch) for branch in schema])
        if isinstance(schema, str):
            return self._named_walks.get(schema) or _walk_primitive(schema)
        kind = schema["type"]
        if kind in ("record", "error"):
            return self._named(
                schema, lambda: _walk_record([self.build(f["type"]) for f in schema["fields"]])
            )
        if kind == "enum":
            return self._named(schema, lambda: _walk_enum(len(schema["symbols"])))
        if kind == "fixed":
            return self._named(schema, lambda: _walk_fixed(schema["size"]))
        if kind == "array":
            return _walk_blocks(self.build(schema["items"]), self._max_list_items, too_long_list)
        if kind == "map":
            entry = _walk_record([_walk_bytes, self.build(schema["values"])])
            return _walk_blocks(entry, self._max_map_entries, too_many_entries)
        return self.build(kind)

    def _named(self, schema: Any, build: Callable[[], Walk]) -> Walk:
        """Build the walk over a named type, which may refer to itself."""
        name = schema["name"]
        self._named_walks[name] = lambda data, position: walk(data, position)
        walk = build()
        self._named_walks[name] = walk
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
            begin = position
            for _ in range(count):
                position = item(data, position)
            if position - begin < count:  # a few bytes could name millions of them again and again
                raise ValueError(f"{count} items in {position - begin} bytes")
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
