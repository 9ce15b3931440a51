"""Pictures: bytes in, small RGB arrays out. Only this module and `image_headers` import Pillow.

Conventions of what the encoder sees:

- EXIF orientation is applied; colour profiles are ignored, as CLIP's own training did.
- Transparency is composited on white. 16-bit pictures keep their high bytes.
- The first frame stands for an animation.
- JPEGs are decoded at the smallest DCT scale that is not below the wanted size, and only
  the part that the centre crop keeps is resampled. The pixels differ a little from those of a
  full decode, and the embeddings hardly at all (`benchmarks/decode.py` measures both).
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from clip_index.encoder.image_headers import ImageLimits, open_image
from clip_index.errors import BadContent

ResizeMode: TypeAlias = Literal["shortest", "longest", "squash"]
Interpolation: TypeAlias = Literal["bicubic", "bilinear"]
Size: TypeAlias = tuple[int, int]
Extent: TypeAlias = tuple[float, float]
Box: TypeAlias = tuple[float, float, float, float]

# What Pillow's parsers and decoders raise on bytes that are not what they claim to be.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REDUCING_GAP = 3.0  # Pillow: "close to fair resampling" from 3.0 on, and much faster for big pictures


@dataclass(frozen=True, slots=True)
class Resizing:
    """How a picture becomes the model's input: the evaluation transform of open_clip.

    `shortest` scales the shorter side to the target and crops the centre, `longest` scales the
    longer side and pads with `fill`, `squash` ignores the aspect ratio.
    """

    width: int
    height: int
    mode: ResizeMode = "shortest"
    interpolation: Interpolation = "bicubic"
    fill: int = 0

    def scaled_size(self, width: int, height: int) -> Size:
        """Return the size of the whole picture after scaling, before it is cropped or padded."""
        if self.mode == "squash":
            return self.width, self.height
        if self.mode == "shortest" and self.width == self.height:
            # torchvision's Resize rounds the longer side down, open_clip's own classes round to nearest
            short = min(width, height)
            return self.width * width // short, self.width * height // short
        pick = max if self.mode == "longest" else min
        ratio = pick(width / self.width, height / self.height)
        return max(1, round(width / ratio)), max(1, round(height / ratio))


def read_pixels(data: bytes, resizing: Resizing, limits: ImageLimits) -> NDArray[np.uint8]:
    """Decode a picture to uint8 RGB of shape (resizing.height, resizing.width, 3).

    Raises BadContent: `not_an_image`, `unsupported_image`, `image_too_large`,
    `truncated_image` or `damaged_image`.
    """
    with _decoding_errors_as_bad_content():
        picture = _Picture.open(data, limits)
        scaled = resizing.scaled_size(*picture.upright_size)
        image, extent = picture.load(scaled)
        return np.array(_fit(_plain_mode(image), extent, scaled, resizing))


def make_thumbnail(data: bytes, side: int, limits: ImageLimits) -> bytes:
    """Return a WebP whose longer side is at most `side` pixels; a smaller picture keeps its size.

    Raises BadContent, as `read_pixels` does.
    """
    with _decoding_errors_as_bad_content():
        picture = _Picture.open(data, limits)
        width, height = picture.upright_size
        ratio = max(1.0, max(width, height) / side)
        size = max(1, round(width / ratio)), max(1, round(height / ratio))
        image, extent = picture.load(size)
        small = _on_white(_resample(_plain_mode(image), size, (0, 0, *extent), Image.Resampling.BICUBIC))
    output = io.BytesIO()
    small.save(output, "WEBP", quality=80, method=2)
    return output.getvalue()


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture whose header is read. A JPEG is not decoded yet, a picture of another format is."""

    image: ImageFile.ImageFile
    orientation: int

    @classmethod
    def open(cls, data: bytes, limits: ImageLimits) -> _Picture:
        image = open_image(data, limits)
        if not isinstance(image, JpegImageFile):  # a JPEG is decoded when its scale is known
            image.load()
        return cls(image, _orientation(image))

    @property
    def is_turned(self) -> bool:
        return self.orientation >= 5

    @property
    def upright_size(self) -> Size:
        width, height = self.image.size
        return (height, width) if self.is_turned else (width, height)

    def load(self, wanted: Size) -> tuple[Image.Image, Extent]:
        """Decode the picture upright, at `wanted` pixels or more; return it and its extent.

        The extent is the size of the picture inside the returned image. A JPEG decoded at 1/8 of its
        size may have a fractional extent, because its image is padded to whole pixels.
        """
        drafted = self.image.draft(None, wanted[::-1] if self.is_turned else wanted)
        self.image.load()
        width, height = self.image.size if drafted is None else drafted[1][2:]
        turn = _TURNS.get(self.orientation)
        upright = self.image if turn is None else self.image.transpose(turn)
        return upright, (height, width) if self.is_turned else (width, height)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; unreadable EXIF data counts as upright."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except _DECODE_ERRORS:
        return 1
    return value if value in _TURNS else 1


def _plain_mode(image: Image.Image) -> Image.Image:
    """Convert the image to one of the modes L, RGB and RGBA."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert("RGBA")
    return image if image.mode == "L" else image.convert("RGB")


def _fit(image: Image.Image, extent: Extent, scaled: Size, resizing: Resizing) -> Image.Image:
    """Resample the part of the picture that the target shows; pad where the target is larger."""
    target = resizing.width, resizing.height
    shown = min(scaled[0], target[0]), min(scaled[1], target[1])
    left, top = round((scaled[0] - shown[0]) / 2), round((scaled[1] - shown[1]) / 2)
    scale_x, scale_y = extent[0] / scaled[0], extent[1] / scaled[1]
    box = (left * scale_x, top * scale_y, (left + shown[0]) * scale_x, (top + shown[1]) * scale_y)
    small = _on_white(_resample(image, shown, box, Image.Resampling[resizing.interpolation.upper()]))
    if shown == target:
        return small
    padded = Image.new("RGB", target, (resizing.fill,) * 3)
    padded.paste(small, ((target[0] - shown[0]) // 2, (target[1] - shown[1]) // 2))
    return padded


def _resample(image: Image.Image, size: Size, box: Box, filter_: Image.Resampling) -> Image.Image:
    return image.resize(size, filter_, box, _REDUCING_GAP)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


@contextmanager
def _decoding_errors_as_bad_content() -> Iterator[None]:
    """Turn Pillow's exceptions into BadContent; no other function does so."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadContent("image_too_large", str(error)) from error
    except _DECODE_ERRORS as error:
        ended_early = isinstance(error, EOFError) or "truncated" in str(error).lower()
        reason = "truncated_image" if ended_early else "damaged_image"
        raise BadContent(reason, str(error) or type(error).__name__) from error
