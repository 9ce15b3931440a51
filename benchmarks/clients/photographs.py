"""Photographs to measure with, from scikit-image. It has no large ones, so they are tiled from several."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageOps

from clip_index.encoder.protocol import PreparedImage

_NAMES = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "motorcycle_left.png",
    "ihc.png",
)


def read_photographs() -> list[Image.Image]:
    directory = Path(skimage.__file__).parent / "data"
    return [Image.open(directory / name).convert("RGB") for name in _NAMES]


def build_jpeg(width: int, height: int, quality: int = 90) -> bytes:
    """Build a JPEG like a camera's (4:2:0) from unscaled photographs, tiled and mirrored in turn."""
    canvas = Image.new("RGB", (width, height))
    photographs = read_photographs()
    tile = 500
    for number, (x, y) in enumerate((x, y) for y in range(0, height, tile) for x in range(0, width, tile)):
        part = ImageOps.fit(photographs[number % len(photographs)], (tile, tile))
        canvas.paste(ImageOps.mirror(part) if number % 2 else part, (x, y))
    output = io.BytesIO()
    canvas.save(output, "JPEG", quality=quality)
    return output.getvalue()


def crop_jpegs(num_images: int, width: int, height: int, seed: int = 0) -> list[bytes]:
    """Return different parts of one large photograph as JPEGs, no two alike."""
    rng = np.random.default_rng(seed)
    whole = Image.open(io.BytesIO(build_jpeg(2 * width, 2 * height, quality=95)))
    whole.load()
    jpegs = []
    for _ in range(num_images):
        left, top = int(rng.integers(0, width)), int(rng.integers(0, height))
        output = io.BytesIO()
        whole.crop((left, top, left + width, top + height)).save(output, "JPEG", quality=90)
        jpegs.append(output.getvalue())
    return jpegs


def with_other_bytes(jpeg: bytes, number: int) -> bytes:
    """Return a JPEG of the same pixels that no other number gives, so that a consumer encodes it again.

    Bytes that it has seen before it does not encode.
    """
    return jpeg + number.to_bytes(8, "big")  # no decoder of JPEG reads what is behind its end


def crop_images(num_images: int, side: int, seed: int = 0) -> list[PreparedImage]:
    """Return random crops of the photographs, prepared as model input."""
    rng = np.random.default_rng(seed)
    pixels = [np.asarray(photograph) for photograph in read_photographs()]

    def crop() -> PreparedImage:
        whole = pixels[rng.integers(len(pixels))]
        top, left = (int(rng.integers(0, length - side)) for length in whole.shape[:2])
        return PreparedImage(np.ascontiguousarray(whole[top : top + side, left : left + side]))

    return [crop() for _ in range(num_images)]
