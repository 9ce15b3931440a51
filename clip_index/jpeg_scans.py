"""How often a decoder goes over a progressive JPEG's pixels: once for each scan, which may be 90 bytes."""

from __future__ import annotations

import re

_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")  # a stuffed byte, TEM and RST have no length behind
_SCAN, _END = b"\xda", b"\xd9"


def has_more_scans(data: bytes, most: int) -> bool:
    """Whether a file's first picture has more scans; of pictures inside or behind it none count."""
    num_scans, position = 0, 2
    while num_scans <= most and (found := _MARKER.search(data, position)) and found[1] != _END:
        num_scans += found[1] == _SCAN
        length = data[found.end() : found.end() + 2]
        position = found.end() + int.from_bytes(length, "big")
    return num_scans > most
