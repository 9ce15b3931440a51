"""Damaged files: what is not pixels is dropped, and of the pixels it is measured how much is missing.

A picture is read here only after Pillow has failed to read the file as it is.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from clip_index.encoder import jpeg_segments
from clip_index.encoder.image_formats import ICON, JPEG_2000, PNG_SIGNATURE, check_few
from clip_index.encoder.image_headers import ImageLimits, open_image
from clip_index.errors import BadContent

MAX_MISSING = 0.04
"""The largest share of a picture's pixels that may be missing, at its end or elsewhere."""

_READINGS = 3  # of a picture without some of its pixels: as it is, and twice with different fillings

DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow's parsers and decoders raise on bytes that are not what they claim to be."""

_END_OF_JPEG = b"\xff\xd9"
_NOISE = bytes(1 + (value * 167 + value // 3) % 254 for value in range(8192))  # coded data that means nothing
_FILLINGS = (0x00, 0x44, 0xA5, 0x77, 0xFF)
_NOTICED = 8  # of 255: the noise behind a refining scan moves averages by less
_WHITE = {"1": 255, "L": 255, "P": 255, "I;16": 65535}  # in other modes -1, which has all bits set
_MAX_SAMPLES = 4_000_000
_PNG_PIXELS = {b"IHDR", b"PLTE"}
_PNG_LOOKS = {b"iCCP": 0, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4, b"eXIf": 0}  # least lengths
_PNG_TRANSPARENCY = {0: 2, 2: 6, 3: 1}  # its least length, by the kind of colours
_WEBP_PIXELS = {b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}
_WEBP_LOOKS = {b"ICCP": 0x20, b"EXIF": 0x08}


def open_damaged(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    """Return a picture whose file cannot be read as it is; a JPEG is not decoded yet, others are.

    If pixels are missing, it may have a third of those that another picture may have, because it is read
    several times. Raises `OSError` if it has more, BadContent `truncated_image` if too much is missing, and
    what `open_image` raises.
    """
    if (whole := _without_what_is_not_pixels(data, limits)) is not None:
        return whole
    bounded = replace(limits, max_pixels=limits.max_pixels // _READINGS)
    try:
        return _open_bounded(data, bounded)
    except BadContent as refusal:
        if refusal.reason != "image_too_large":
            raise
        open_image(data, limits)  # says so if it is too large for any picture
        raise OSError(f"damaged; {refusal}") from None


def _without_what_is_not_pixels(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile | None:
    """Return the picture if all of its pixels are there. Other formats than JPEG: that is mended below."""
    if data.startswith(b"\xff\xd8"):
        return None
    with suppress(*DECODE_ERRORS):
        mended, other = (_repaired(data, bytes([filling])) for filling in _FILLINGS[:2])
        if mended != data and mended == other:
            picture = open_image(mended, limits)
            picture.load()
            return picture
    return None


def _open_bounded(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    if data.startswith(b"\xff\xd8"):
        whole = jpeg_segments.whole_segments(jpeg_segments.without_metadata(data))
        _check_missing(_missing_of_jpeg(whole, limits))
        return open_image(whole + _END_OF_JPEG, limits)
    samples = []
    for picture in islice(_readings(data, limits), 2):
        samples.append(_sample(picture))
    if len(samples) < 2:
        raise OSError("cannot be decoded")
    _check_missing(float(_differs(*samples).mean()))
    return picture


def _sample(picture: ImageFile.ImageFile) -> NDArray[np.generic]:
    """Return every n-th pixel of every n-th row; n is odd, because interlacing skips every second row."""
    step = 1 + 2 * int(math.sqrt(picture.width * picture.height / _MAX_SAMPLES) / 2)
    size = math.ceil(picture.width / step), math.ceil(picture.height / step)
    return np.asarray(picture.resize(size, Image.Resampling.NEAREST))


def _readings(data: bytes, limits: ImageLimits) -> Iterator[ImageFile.ImageFile]:
    """Yield readings that differ in what stands for missing bytes. Decoders refuse some fillings."""
    for number, filling in enumerate(_FILLINGS):
        with suppress(*DECODE_ERRORS):
            yield _loaded(_repaired(data, bytes([filling])), limits, number % 2)


def _check_missing(missing: float) -> None:
    if missing > MAX_MISSING:
        raise BadContent(
            "truncated_image", f"{missing:.0%} of the pixels are missing, {MAX_MISSING:.0%} may be"
        )


def _differs(one: NDArray[np.generic], other: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Compare the pixels of two readings that differ in nothing but what stands for what is missing."""
    differs = np.abs(one.astype(np.int32) - other.astype(np.int32)) > _NOTICED
    return np.asarray(differs.any(axis=-1)) if differs.ndim == 3 else differs


def _missing_of_jpeg(data: bytes, limits: ImageLimits) -> float:
    """Return the share of the picture from where noise behind the coded data begins to show."""
    if jpeg_segments.has_several_scans(data) and not jpeg_segments.is_only_sharpened_by_what_is_missing(data):
        raise BadContent("truncated_image", "the progressive picture ends before its first details")
    noise = _NOISE + jpeg_segments.next_restart(data) + _NOISE  # it may end between two intervals of restarts
    one, other = (_averages_of_jpeg(data + end + _END_OF_JPEG, limits) for end in (b"", noise))
    differs = _differs(one, other)
    return 1 - int(differs.argmax()) / differs.size if differs.any() else 0.0


def _averages_of_jpeg(data: bytes, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode at an eighth of the size, where a pixel is the average of one block."""
    image = open_image(data, limits)
    image.draft(None, (1, 1))
    image.load()
    return np.asarray(image)


def _loaded(data: bytes, limits: ImageLimits, white: int) -> ImageFile.ImageFile:
    """Decode what can be decoded; pixels that the decoder does not reach are black, or white if that is 1."""
    image = open_image(data, limits)
    prepare = image.load_prepare

    def paint() -> None:
        prepare()
        image.im.paste(white * _WHITE.get(image.im.mode, -1), (0, 0, *image.im.size))

    image.load_prepare = paint  # type: ignore[method-assign]
    try:
        image.load()
    except DECODE_ERRORS:
        if image._im is None:
            raise
        image.tile = []
        if isinstance(image, TiffImageFile):
            with suppress(*DECODE_ERRORS):
                image.load_end()  # turns it upright
    return image


def _repaired(data: bytes, filling: bytes) -> bytes:
    if data.startswith(PNG_SIGNATURE):
        return _repaired_png(data)
    if data.startswith(b"RIFF"):
        return _repaired_webp(data, filling)
    if data[4:8] == b"ftyp":
        return _repaired_boxes(data, filling)
    if data.startswith(JPEG_2000):
        return data + _END_OF_JPEG  # the same marker
    if data.startswith(ICON):  # its mask, which is last, is all or nothing to Pillow
        return data + filling * math.ceil(len(data) * MAX_MISSING)
    return data


def _repaired_png(data: bytes) -> bytes:
    """Keep the chunks that decide how the first picture looks; one that is not pixels only if it is sound."""
    parts, position = [PNG_SIGNATURE], len(PNG_SIGNATURE)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk = data[position : position + length + 12]
        position += length + 12
        if kind == b"IDAT":  # its checksum is not needed, because the coded data has its own
            parts.append(_png_chunk(kind, chunk[8 : 8 + length]))
        elif kind in _PNG_PIXELS or (_has_right_length(kind, length, data[25]) and _is_sound(chunk, length)):
            parts.append(chunk)
    return b"".join([*parts, _png_chunk(b"IEND", b"")])


def _has_right_length(kind: bytes, length: int, color_type: int) -> bool:
    least = _PNG_TRANSPARENCY.get(color_type) if kind == b"tRNS" else _PNG_LOOKS.get(kind)
    return least is not None and length >= least


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _is_sound(chunk: bytes, length: int) -> bool:
    if len(chunk) < length + 12 or chunk != _png_chunk(chunk[4:8], chunk[8:-4]):
        return False
    if chunk[4:8] != b"iCCP":
        return True
    name, _, coded = chunk[8:-4].partition(b"\0")
    expander = zlib.decompressobj()
    with suppress(zlib.error):
        expander.decompress(coded[1:], 2**20)
        return bool(name) and coded[:1] == b"\0" and not expander.unconsumed_tail
    return False


def _repaired_webp(data: bytes, filling: bytes) -> bytes:
    """Keep the chunks that decide how the picture looks; a last one that is a little short is filled up."""
    parts: list[tuple[bytes, bytes]] = []
    flags, position = 0, 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        body = data[position + 8 : position + 8 + length]
        position += 8 + length + length % 2
        check_few(len(parts), "chunks")
        if kind in _WEBP_LOOKS and len(body) == length:
            flags |= _WEBP_LOOKS[kind]
        elif kind not in _WEBP_PIXELS:
            continue
        parts.append((kind, _filled_up(body, length, filling)))
    chunks = [
        _webp_chunk(kind, _with_flags(body, flags) if kind == b"VP8X" else body) for kind, body in parts
    ]
    content = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def _with_flags(body: bytes, flags: int) -> bytes:
    """Set which metadata an extended WebP has; the flags of transparency and animation stay."""
    return bytes([body[0] & 0x12 | flags]) + body[1:]


def _webp_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body + b"\0" * (len(body) % 2)


def _repaired_boxes(data: bytes, filling: bytes) -> bytes:
    """Hide EXIF data that may be broken, and fill up a last box that is a little short (AVIF and HEIC)."""
    boxes: list[bytes] = []
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if length < 8:  # 0: up to the end of the file
            break
        box = data[position : position + length]
        boxes.append(box.replace(b"\0\0Exif", b"\0\0free") if kind == b"meta" else box)
        check_few(len(boxes), "boxes")
        position += length
    hidden = b"".join([*boxes, data[position:]])
    return _filled_up(hidden, position, filling) if position > len(hidden) else hidden


def _filled_up(body: bytes, length: int, filling: bytes) -> bytes:
    if len(body) < length * (1 - MAX_MISSING):
        raise BadContent("truncated_image", f"{len(body)} of {length} bytes are there")
    return body.ljust(length, filling)
