"""Pictures that tests make from scikit-image's photographs, and how two of them are compared."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray
from PIL import Image, ImageCms

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import Resizing, read_pixels
from clip_index.errors import BadContent

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
LIMITS = ImageLimits()
SMALL = Resizing(64, 64)


def read(data: bytes, resizing: Resizing = SMALL, limits: ImageLimits = LIMITS) -> NDArray[np.uint8]:
    return read_pixels(data, resizing, limits)


def reason_of(data: bytes, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(BadContent) as caught:
        read(data, limits=limits)
    return caught.value.reason


def photograph(name: str = "astronaut.png") -> Image.Image:
    image: Image.Image = Image.open(PHOTOGRAPHS / name)
    image.load()  # closes the file
    return image


def plain_photograph(width: int = 200, height: int = 150) -> Image.Image:
    """A photograph without a profile or other facts."""
    return Image.fromarray(np.asarray(photograph("coffee.png").convert("RGB").resize((width, height))))


def encoded(image: Image.Image, image_format: str, **options: object) -> bytes:
    output = io.BytesIO()
    image.save(output, image_format, **options)
    return output.getvalue()


def filled(mode: str, color: object, size: tuple[int, int] = (40, 30)) -> Image.Image:
    return Image.new(mode, size, color)  # type: ignore[arg-type]


def reference(image: Image.Image, side: int = 64) -> NDArray[np.uint8]:
    """The full resolution way: colours to sRGB, shorter side to `side`, rounded down, centre crop."""
    if (profile := image.info.get("icc_profile")) is not None:
        source, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB") or image
    short = min(image.size)
    width, height = (side * length // short for length in image.size)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return np.asarray(resized.crop((left, top, left + side, top + side)))


def mean_difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_png_chunk(data: bytes, kind: bytes, body: bytes, *, wrong_checksum: bool = False) -> bytes:
    """Insert a chunk behind the header chunk of a PNG."""
    chunk = png_chunk(kind, body)
    if wrong_checksum:
        chunk = chunk[:-1] + bytes([chunk[-1] ^ 1])
    return data[:33] + chunk + data[33:]


def with_jpeg_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + data[2:]
