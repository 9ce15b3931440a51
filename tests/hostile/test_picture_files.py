"""A picture file of very many parts costs little, whatever its format: it is refused, or read in time."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Mapping
from contextlib import suppress

import pytest
from PIL import Image

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import Resizing, make_thumbnail, read_pixels
from clip_index.errors import BadContent
from tests.hostile.limits import assert_bounded

LARGEST = 2 * 2**20
MAX_THREAD_SECONDS = 4.0  # a thread that prepares pictures, and holds up no event loop
RESIZING, LIMITS = Resizing(32, 32), ImageLimits()


def encoded(image_format: str) -> bytes:
    output = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(output, image_format)
    return output.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def filled(begin: bytes, part: bytes, end: bytes = b"") -> bytes:
    return begin + part * (LARGEST // len(part)) + end


def boxes(brand: bytes, kind: bytes) -> bytes:
    return filled(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1miaf" + brand, b"\0\0\0\x08" + kind)


def webp(kind: bytes) -> bytes:
    body = filled(b"WEBPVP8X\x0a\0\0\0\x02\0\0\0\x10\0\0\x10\0\0", kind + bytes(4))
    return b"RIFF" + struct.pack("<I", len(body)) + body


JPEG, PNG, GIF = encoded("JPEG"), encoded("PNG"), b"GIF89a\x10\0\x10\0"
PNG_PIXELS = PNG.index(b"IDAT") - 4
FILES: Mapping[str, bytes] = {
    "JPEG, segments of an application": filled(JPEG[:2], b"\xff\xe1\0\2", JPEG[2:]),
    "JPEG, tables of a damaged one": filled(JPEG[:2], b"\xff\xdb\0\2", JPEG[2:-20]),
    "JPEG, filling bytes": filled(JPEG[:2], b"\xff", JPEG[2:]),
    "JPEG, bytes between segments": filled(JPEG[:2], b"\0", JPEG[2:]),
    "JPEG, scans": filled(JPEG[:-2], JPEG[JPEG.index(b"\xff\xda") : -2]),
    "JPEG, restarts": filled(JPEG[:-2], b"\xff\xd0"),
    "PNG, pixels": filled(PNG[:PNG_PIXELS], chunk(b"IDAT"), b"junk"),
    "PNG, palettes": filled(PNG[:PNG_PIXELS], chunk(b"PLTE"), PNG[PNG_PIXELS:]),
    "PNG, texts": filled(PNG[:PNG_PIXELS], chunk(b"tEXt", b"a\0b"), PNG[PNG_PIXELS:]),
    "PNG, gammas": filled(PNG[:PNG_PIXELS], chunk(b"gAMA", b"\0\0\xb1\x8f"), PNG[PNG_PIXELS:]),
    "WebP, alphas": webp(b"ALPH"),
    "WebP, frames": webp(b"ANMF"),
    "AVIF, descriptions": boxes(b"avif", b"meta"),
    "AVIF, free boxes": boxes(b"avif", b"free"),
    "HEIC, descriptions": boxes(b"heic", b"meta"),
    "JPEG 2000, free boxes": filled(b"\0\0\0\x0cjP  \r\n\x87\n", b"\0\0\0\x08free"),
    "GIF, comments": filled(GIF + bytes(3), b"!\xfe\0"),
    "GIF, blocks of a comment": filled(GIF + bytes(3) + b"!\xfe", b"\x01a"),
    "GIF, frames": filled(GIF + b"\x80\0\0\0\0\0\xff\xff\xff", b",\0\0\0\0\x10\0\x10\0\0\x02\0"),
    "icon, entries": filled(b"\0\0\1\0\xff\xff", bytes(16)),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_a_picture_file_of_very_many_parts_costs_little(data: bytes) -> None:
    def read() -> None:
        with suppress(BadContent):
            read_pixels(data, RESIZING, LIMITS)
        with suppress(BadContent):
            make_thumbnail(data, 32, LIMITS)

    assert_bounded(read, len(data), MAX_THREAD_SECONDS)
