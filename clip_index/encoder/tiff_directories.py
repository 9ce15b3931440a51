"""What the directories of a TIFF file claim, checked before Pillow builds an object for each strip."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from clip_index.errors import BadContent

_MAX_PAGES = 30
_MAX_PARTS = 100_000  # strips or tiles of one page; Pillow takes 12 µs for each
_PART_OFFSETS = (273, 324)  # of strips, of tiles
_BYTES_OF_TYPE = dict(
    zip((3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17, 18), (2, 4, 8, 2, 4, 8, 4, 8, 4, 8, 8, 8), strict=True)
)


def check_directories(data: bytes) -> None:
    """Raise BadContent if a page has too many parts, or if its values together exceed the file."""
    for entries in _directories(data):
        num_parts = max((count for tag, _, count in entries if tag in _PART_OFFSETS), default=0)
        if num_parts > _MAX_PARTS:
            raise BadContent("image_too_large", f"{num_parts} strips or tiles, the limit is {_MAX_PARTS}")
        if sum(_BYTES_OF_TYPE.get(kind, 1) * count for _, kind, count in entries) > len(data) + 2**16:
            raise BadContent("damaged_image", "a TIFF directory claims more bytes than the file has")


def _directories(data: bytes) -> Iterator[list[tuple[int, int, int]]]:
    """Yield the (tag, type, count) of each entry, page by page. What lies outside the file ends the list."""
    order, is_big = "<" if data.startswith(b"II") else ">", b"+" in data[2:4]
    number, entry, offset = ("Q", "HHQ8x", "Q") if is_big else ("H", "HHI4x", "I")
    size = struct.calcsize("<" + entry)
    try:
        (position,) = struct.unpack_from(order + offset, data, 8 if is_big else 4)
        for _ in range(_MAX_PAGES):
            if position == 0:
                return
            (count,) = struct.unpack_from(order + number, data, position)
            start = position + struct.calcsize("<" + number)
            end = start + min(count, len(data) // size) * size
            yield list(struct.iter_unpack(order + entry, data[start:end]))
            (position,) = struct.unpack_from(order + offset, data, end)
    except struct.error:
        return
