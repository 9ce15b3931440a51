"""The marker segments of a JPEG file, without decoding a pixel."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")  # those that a length follows: not TEM, RST
_SCAN, _END = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JFIF, _EXIF_OR_XMP, _ICC, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
_COMMENT = 0xFE


@dataclass(frozen=True, slots=True)
class Segment:
    """One marker with its parameters, at `data[start:end]`, without the coded data behind a scan's header."""

    marker: int
    start: int
    end: int

    @property
    def is_scan(self) -> bool:
        return self.marker == _SCAN


def segments(data: bytes) -> Iterator[Segment]:
    """Yield the segments of the first picture, but not those of a preview inside a segment."""
    position = 2
    while (found := _MARKER.search(data, position)) and found[1][0] != _END:
        length = int.from_bytes(data[found.end() : found.end() + 2], "big")
        position = found.end() + max(length, 2)
        yield Segment(found[1][0], found.start(), position)


def header_segments(data: bytes) -> list[Segment]:
    """Return the segments up to the first scan's header, which is the last one."""
    header = []
    for segment in segments(data):
        header.append(segment)
        if segment.is_scan:
            break
    return header


def has_several_scans(data: bytes) -> bool:
    """Whether the picture is coded in several scans, so that a decoder holds all its coefficients."""
    header = header_segments(data)
    frame = next((each for each in header if each.marker in _FRAMES), None)
    if frame is None or not header[-1].is_scan:
        return False
    is_sequential = frame.marker in (0xC0, 0xC1, 0xC9)
    num_components, num_in_scan = data[frame.start + 9 : frame.start + 10], data[header[-1].start + 4 :][:1]
    return not is_sequential or num_in_scan < num_components


def num_coefficients_a_pixel(data: bytes) -> float:
    """Return how many samples are stored for a pixel: 1 for grey, 1.5 for 4:2:0, 3 for 4:4:4."""
    frame = next((each for each in header_segments(data) if each.marker in _FRAMES), None)
    factors = b"" if frame is None else data[frame.start + 11 : frame.end : 3]
    samples = [(factor >> 4) * (factor & 15) for factor in factors]
    most = max(samples, default=0)
    return sum(samples) / most if most else 3.0


def without_metadata(data: bytes) -> bytes:
    """Return the file without the segments that decide neither pixels, colours nor orientation."""
    header = header_segments(data)
    kept = [data[each.start : each.end] for each in header if _decides_pixels(data, each)]
    return b"".join([data[:2], *kept, data[header[-1].end :]]) if header else data


def _decides_pixels(data: bytes, segment: Segment) -> bool:
    body = data[segment.start + 4 : min(segment.start + 18, segment.end)]
    if segment.marker == _EXIF_OR_XMP:
        return body.startswith(b"Exif\0\0")
    if segment.marker == _ICC:
        return body.startswith(b"ICC_PROFILE\0") and len(body) == 14
    if segment.marker in (_JFIF, _ADOBE):
        return True
    return not (segment.marker == _COMMENT or _JFIF <= segment.marker <= 0xEF)


def next_restart(data: bytes) -> bytes:
    """Return the restart marker that a decoder expects behind the end of the data; they count from 0 to 7."""
    found = max((data.rfind(bytes([0xFF, 0xD0 + number])), number) for number in range(8))
    return bytes([0xFF, 0xD0 + ((found[1] + 1) % 8 if found[0] >= 0 else 0)])


def whole_segments(data: bytes) -> bytes:
    """Return the file without a last segment that is cut off."""
    last = deque(segments(data), maxlen=1)
    return data[: last[0].start] if last and last[0].end > len(data) else data


def is_only_sharpened_by_what_is_missing(data: bytes) -> bool:
    """Whether a progressive file holds the whole picture, if only coarsely.

    The scans of all averages (DC) must be followed by one complete scan of details (AC), which
    shows when another segment comes after it.
    """
    found_details = False
    for segment in segments(data):
        if found_details:
            return True
        if segment.is_scan:
            num_in_scan = int.from_bytes(data[segment.start + 4 : segment.start + 5], "big")
            found_details = data[segment.start + 5 + 2 * num_in_scan : segment.end][:1] > b"\0"
    return False
