"""Which format a file has, by its first bytes, and the plugin of Pillow that reads it.

Pillow's plugins are called directly, for two reasons. No parser of another format sees the bytes;
and `Image.open` has a limit of its own, a process-wide setting that only warns.
"""

from __future__ import annotations

import importlib
import io
import struct
from collections.abc import Callable
from typing import TypeAlias

from PIL import ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.IcoImagePlugin import IcoImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from clip_index.encoder.jpeg_segments import Segment, segments
from clip_index.encoder.tiff_directories import check_directories
from clip_index.errors import BadContent

Opener: TypeAlias = Callable[[io.BytesIO], ImageFile.ImageFile]

SUPPORTED = "JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, ICO and JPEG 2000, and HEIC if pillow-heif is installed"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ICON = b"\0\0\1\0"
JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")

_SIGNATURES: dict[bytes, Opener] = {
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    b"BM": BmpImageFile,
}
_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_FOREIGN_SIGNATURES = {
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"qoif": "QOI",
    b"%PDF": "PDF",
}
_SVG_WITHIN = 4096  # bytes: a declaration, a comment and a document type may stand before the drawing
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_JPEG_KINDS_READ = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # by the marker of the frame
_JPEG_KINDS_UNREAD = {
    0xF7: "near-lossless (JPEG-LS)",
    **dict.fromkeys((0xC3, 0xC7, 0xCB, 0xCF), "lossless"),
    **dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical"),
}
_TIFF_COMPRESSIONS_UNREAD = {
    **dict.fromkeys(("9", "10", "34661"), "JBIG"),
    **dict.fromkeys(("50002", "52546"), "JPEG XL"),
    "34712": "JPEG 2000",
    "34887": "LERC",
    "34892": "the JPEG of raw photographs",
}
_MAX_PARTS = 40_000  # a PNG of 64 MiB in chunks of 4 KiB, which are small ones, has 16,384
_MAX_BYTES_BETWEEN = 2**20
_MAX_ICON_SIDE = 1024  # of a bitmap inside an icon; a larger one is a PNG


def opener_for(data: bytes) -> Opener:
    """Return what reads the header of these bytes. BadContent: `unsupported_image` or `not_an_image`."""
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile
    if data[4:8] == b"ftyp" and (opener := _by_brand(data)) is not None:
        return opener
    if data.startswith(ICON) and data[4:6] != b"\0\0":
        return _open_icon
    if data.startswith(_TIFF):
        return _open_tiff
    if data.startswith(_JPEG):
        return _open_jpeg
    if data.startswith(PNG_SIGNATURE):
        return _open_png
    if data.startswith(JPEG_2000):
        return _open_jpeg_2000
    for start, opener in _SIGNATURES.items():
        if data.startswith(start):
            return opener
    if (name := _foreign_format(data)) is not None:
        raise BadContent("unsupported_image", f"{name}; supported are {SUPPORTED}")
    raise BadContent("not_an_image", f"{len(data)} bytes that start with no known picture signature")


def _foreign_format(data: bytes) -> str | None:
    head = data[:_SVG_WITHIN].removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith((b"<svg", b"<?xml", b"<!--", b"<!DOCTYPE svg")) and b"<svg" in head:
        return "SVG"
    return next((name for start, name in _FOREIGN_SIGNATURES.items() if data.startswith(start)), None)


def _by_brand(data: bytes) -> Opener | None:
    """AVIF and HEIF share a container; its brands tell which one this is."""
    length = min(int.from_bytes(data[:4], "big"), 256)
    major, *compatible = (data[at : at + 4] for at in (8, *range(16, length, 4)))
    if major in _AVIF_BRANDS or (
        major not in _HEIF_BRANDS - {b"mif1", b"msf1"} and set(compatible) & _AVIF_BRANDS
    ):
        return AvifImageFile
    return _heif_opener() if major in _HEIF_BRANDS or set(compatible) & _HEIF_BRANDS else None


def _heif_opener() -> Opener:
    try:
        plugin = importlib.import_module("pillow_heif")
    except ImportError:
        raise BadContent("unsupported_image", f"HEIF; supported are {SUPPORTED}") from None
    opener: Opener = plugin.HeifImageFile
    return opener


def check_few(number: int, parts: str) -> None:
    """Raise BadContent if a file has more parts than any program writes; each costs microseconds."""
    if number > _MAX_PARTS:
        raise BadContent("damaged_image", f"the file has more than {_MAX_PARTS} {parts}")


def _open_jpeg(file: io.BytesIO) -> ImageFile.ImageFile:
    """Read the header of a JPEG. Pillow reads it in Python: segment by segment, and byte by byte between."""
    data, between, position = file.getvalue(), 0, 2
    for number, segment in enumerate(segments(data)):
        check_few(number, "segments")
        between, position = between + segment.start - position, segment.end
        if between > _MAX_BYTES_BETWEEN:
            raise BadContent("damaged_image", f"{between} bytes stand between the segments of its header")
        _check_kind_of_jpeg(data, segment)
        if segment.is_scan:
            break
    return JpegImageFile(file)


def _check_kind_of_jpeg(data: bytes, segment: Segment) -> None:
    """Raise BadContent if the segment announces a kind of JPEG that browsers and cameras do not know."""
    kind = _JPEG_KINDS_UNREAD.get(segment.marker)
    if segment.marker in _JPEG_KINDS_READ and data[segment.start + 4 : segment.start + 5] == b"\x0c":
        kind = "12-bit"
    if kind is not None:
        raise BadContent("unsupported_image", f"a {kind} JPEG; supported are {SUPPORTED}")


def _open_png(file: io.BytesIO) -> ImageFile.ImageFile:
    data, position, number = file.getvalue(), len(PNG_SIGNATURE), 0
    while position < len(data):
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        number += 1
        check_few(number, "chunks")
    return PngImageFile(file)


def _open_jpeg_2000(file: io.BytesIO) -> ImageFile.ImageFile:
    """Read the header of a JPEG 2000 file. A codestream without boxes begins with a large number instead."""
    data, position, number = file.getvalue(), 0, 0
    while (length := int.from_bytes(data[position : position + 4], "big")) >= 8:
        position += length
        number += 1
        check_few(number, "boxes")
    return Jpeg2KImageFile(file)


def _open_tiff(file: io.BytesIO) -> ImageFile.ImageFile:
    check_directories(file.getvalue())
    try:
        image = TiffImageFile(file)
    except SyntaxError as error:  # Pillow looks the compression up in a table
        name = _TIFF_COMPRESSIONS_UNREAD.get(str(error))
        if name is None:
            raise
        raise BadContent("unsupported_image", f"a TIFF compressed with {name}") from None
    if image.info.get("compression") == "webp":  # known to Pillow, but not to the library that it brings
        raise BadContent("unsupported_image", "a TIFF compressed with WebP")
    return image


def _open_icon(file: io.BytesIO) -> ImageFile.ImageFile:
    """Read the largest picture of an icon. A bitmap is decoded at once, so its size is checked here."""
    data = file.getvalue()
    payload = _largest_of_icon(data)
    if payload.startswith(PNG_SIGNATURE):
        return PngImageFile(io.BytesIO(payload))
    width, height = struct.unpack_from("<ii", payload, 4)
    if not (0 < width <= _MAX_ICON_SIDE and 0 < height <= 2 * _MAX_ICON_SIDE):
        raise BadContent("image_too_large", f"a bitmap of {width}x{height // 2} pixels in an icon")
    return IcoImageFile(file)


def _largest_of_icon(data: bytes) -> bytes:
    """Return the picture that Pillow takes: the largest, and of several the one with most colours."""
    (count,) = struct.unpack_from("<H", data, 4)
    entries = [struct.unpack_from("<BBBBHHII", data, 6 + 16 * number) for number in range(min(count, 256))]
    *_, offset = max(entries, key=lambda entry: ((entry[0] or 256) * (entry[1] or 256), entry[5]))
    return data[offset:]
