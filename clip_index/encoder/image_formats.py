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

from clip_index.encoder.tiff_directories import check_directories
from clip_index.errors import BadContent

Opener: TypeAlias = Callable[[io.BytesIO], ImageFile.ImageFile]

SUPPORTED = "JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, ICO and JPEG 2000, and HEIC if pillow-heif is installed"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ICON = b"\0\0\1\0"
JPEG_2000 = (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")

_SIGNATURES: dict[bytes, Opener] = {
    b"\xff\xd8\xff": JpegImageFile,
    PNG_SIGNATURE: PngImageFile,
    b"GIF87a": GifImageFile,
    b"GIF89a": GifImageFile,
    b"BM": BmpImageFile,
    **dict.fromkeys(JPEG_2000, Jpeg2KImageFile),
}
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


def _open_tiff(file: io.BytesIO) -> ImageFile.ImageFile:
    check_directories(file.getvalue())
    return TiffImageFile(file)


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
