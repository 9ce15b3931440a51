"""What the header of a picture file tells: its format, and whether the picture keeps the limits."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from itertools import islice

from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile

from clip_index.encoder import jpeg_segments
from clip_index.encoder.image_formats import opener_for
from clip_index.errors import BadContent

_MAX_SCANS = 20  # of a picture of `max_pixels`; encoders make up to 18
# What a pixel of a format costs, of what a decoded pixel of a PNG costs (four bytes of memory, 10 ns).
_BASELINE_JPEG = 0.25  # decoded line by line at a fraction of its size; 3 ns a pixel
_COEFFICIENT = 1 / 3  # of a JPEG in several scans, which are all held at once; 1.5 a pixel at 4:2:0
_RUN_LENGTH_BMP = 16.0  # decoded in Python
_JPEG_2000 = 8.0  # decoded whole; each halving saves three quarters
_SHORT_SIDE_OF_HALVED = 2048  # of the picture: from there on it is halved once, from twice as much on twice


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """The limits of one picture. They are checked before a pixel is decoded."""

    max_bytes: int = field(
        default=64 * 2**20,
        metadata={"description": "Largest picture file, in bytes; a larger one becomes a dead letter."},
    )
    max_pixels: int = field(
        default=80_000_000,
        metadata={
            "description": "Most pixels of a picture, checked before it is decoded. A baseline JPEG may have "
            "four times as many, because it is decoded at a fraction of its size."
        },
    )
    max_side: int = field(default=65_535, metadata={"description": "Most pixels on a picture's longer side."})


def open_image(data: bytes, limits: ImageLimits) -> ImageFile.ImageFile:
    """Read the header and check the limits; no pixel is decoded, except of a bitmap in an icon.

    Raises BadContent, and whatever Pillow's parsers raise.
    """
    if len(data) > limits.max_bytes:
        raise BadContent("image_too_large", f"{len(data)} bytes, the limit is {limits.max_bytes}")
    image = opener_for(data)(io.BytesIO(data))
    has_several_scans = isinstance(image, JpegImageFile) and jpeg_segments.has_several_scans(data)
    check_size(image, limits, _cost_of_a_pixel(data, image, has_several_scans=has_several_scans))
    if has_several_scans:
        _check_scans(data, image, limits)
    if isinstance(image, JpegImageFile):
        image.decodermaxblock = len(data)  # Pillow copies the file twice if it reads it in pieces
    return image


def _cost_of_a_pixel(data: bytes, image: ImageFile.ImageFile, *, has_several_scans: bool) -> float:
    if has_several_scans:
        return jpeg_segments.num_coefficients_a_pixel(data) * _COEFFICIENT
    if isinstance(image, JpegImageFile):
        return _BASELINE_JPEG
    if isinstance(image, Jpeg2KImageFile):
        possible = int(math.log2(max(1.0, 2 * min(image.size) / _SHORT_SIDE_OF_HALVED)))
        return max(1.0, _JPEG_2000 / 4.0 ** min(num_halvings(data), possible))
    if isinstance(image, BmpImageFile) and image.tile and image.tile[0][0] == "bmp_rle":
        return _RUN_LENGTH_BMP
    return 1.0


def num_halvings(data: bytes) -> int:
    """Return how often a JPEG 2000 picture can be halved while it is decoded: the levels in its `COD`."""
    at = data.find(b"\xff\x52", max(0, data.find(b"\xff\x4f\xff\x51")))
    levels = data[at + 9 : at + 10]
    return levels[0] if at > 0 and levels and levels[0] <= 32 else 0


def check_size(image: Image.Image, limits: ImageLimits, cost: float = 1.0) -> None:
    """Raise BadContent `image_too_large` if decoding costs more than that of `max_pixels` usual pixels."""
    width, height = image.size
    if width * height * cost > limits.max_pixels or max(width, height) > limits.max_side:
        limit = f"{round(limits.max_pixels / cost)} pixels and {limits.max_side} a side"
        raise BadContent("image_too_large", f"{width}x{height} pixels, the limit is {limit}")


def _check_scans(data: bytes, image: Image.Image, limits: ImageLimits) -> None:
    """Allow a smaller picture more scans, up to a bound: a scan takes some time even of few pixels.

    A decoder goes over all pixels once for each scan, and a scan may be 90 bytes long.
    """
    pixels = max(image.width * image.height, limits.max_pixels // _MAX_SCANS)
    most = max(_MAX_SCANS, _MAX_SCANS * limits.max_pixels // pixels)
    scans = (segment for segment in jpeg_segments.segments(data) if segment.is_scan)
    if next(islice(scans, most, None), None) is not None:
        raise BadContent("image_too_large", f"more than {most} scans of {image.width}x{image.height} pixels")
