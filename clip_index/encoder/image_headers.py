"""What the header of a picture file tells: its format, and whether the picture keeps the limits."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

from PIL import Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from clip_index.errors import BadContent

_FOREIGN_SIGNATURES = {
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"8BPS": "Photoshop",
    b"\0\0\1\0": "icon",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"qoif": "QOI",
    b"%PDF": "PDF",
    b"<svg": "SVG",
}
_MAX_SCANS = 20  # of a picture of `max_pixels`; encoders make up to 18
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")  # those that a length follows: not TEM, RST
_JPEG_SCAN, _JPEG_END = b"\xda", b"\xd9"


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits of one picture. They are checked before a pixel is decoded."""

    max_bytes: int = field(
        default=64 * 2**20,
        metadata={"description": "Largest picture file, in bytes; a larger one becomes a dead letter."},
    )
    max_pixels: int = field(
        default=64_000_000,
        metadata={"description": "Most pixels of a picture, checked before it is decoded."},
    )
    max_side: int = field(default=32_768, metadata={"description": "Most pixels on a picture's longer side."})


def open_image(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    """Read the header and check the limits; no pixel is decoded.

    Pillow's plugins are called directly, for two reasons. No parser of another format sees the
    bytes; and `Image.open` has a limit of its own, a process-wide setting that only warns. Raises
    BadContent, and whatever Pillow's parsers raise.
    """
    if len(data) > limits.max_bytes:
        raise BadContent("image_too_large", f"{len(data)} bytes, the limit is {limits.max_bytes}")
    image = _plugin(data)(io.BytesIO(data))
    _check_size(image, limits)
    if "progressive" in image.info:
        _check_scans(data, image, limits)
    return image


def _plugin(data: bytes) -> type[ImageFile.ImageFile]:
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        if len(data) < int.from_bytes(data[4:8], "little") + 8:
            raise BadContent("truncated_image", "the file is shorter than its RIFF header says")
        return WebPImageFile
    if (name := _foreign_format(data)) is not None:
        raise BadContent("unsupported_image", f"{name}; supported are JPEG, PNG, WebP and GIF")
    raise BadContent("not_an_image", f"{len(data)} bytes that start with no known picture signature")


def _foreign_format(data: bytes) -> str | None:
    if data[4:8] == b"ftyp":
        return {b"avi": "AVIF", b"hei": "HEIF", b"mif": "HEIF"}.get(data[8:11])
    return next((name for start, name in _FOREIGN_SIGNATURES.items() if data.startswith(start)), None)


def _check_size(image: Image.Image, limits: ImageLimits) -> None:
    width, height = image.size
    if width * height > limits.max_pixels or max(width, height) > limits.max_side:
        limit = f"{limits.max_pixels} pixels and {limits.max_side} a side"
        raise BadContent("image_too_large", f"{width}x{height} pixels, the limit is {limit}")


def _check_scans(data: bytes, image: Image.Image, limits: ImageLimits) -> None:
    """Allow a smaller picture more scans, up to a bound: a scan takes some time even of few pixels."""
    pixels = max(image.width * image.height, limits.max_pixels // _MAX_SCANS)
    most = _MAX_SCANS * limits.max_pixels // pixels
    if _has_more_scans(data, most):
        raise BadContent("image_too_large", f"more than {most} scans of {image.width}x{image.height} pixels")


def _has_more_scans(data: bytes, most: int) -> bool:
    """Whether the first picture of a JPEG file has more than `most` scans.

    A decoder goes over all pixels of a progressive JPEG once for each scan, and a scan may be 90
    bytes long. Scans of a picture inside the first one (a preview) or after it do not count.
    """
    num_scans, position = 0, 2
    while num_scans <= most and (found := _JPEG_MARKER.search(data, position)) and found[1] != _JPEG_END:
        num_scans += found[1] == _JPEG_SCAN
        length = data[found.end() : found.end() + 2]
        position = found.end() + int.from_bytes(length, "big")
    return num_scans > most
