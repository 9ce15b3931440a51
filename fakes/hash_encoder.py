"""An encoder without a model. It hashes words and pixels: equal inputs are equal, similar texts are near.

The real code prepares contents (decoding, windows, limits), so bad contents have their real reasons.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clip_index.content import Embeddings
from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import Resizing, read_crops
from clip_index.encoder.picture_crops import Cropping
from clip_index.encoder.protocol import EncoderFingerprint, Prepared, PreparedImage, PreparedText
from clip_index.encoder.text_windows import Windowing, build_windows, check_not_blank

START, END = 1, 2
WINDOWING = Windowing.for_context(77)
RESIZING = Resizing(8, 8)


@dataclass(frozen=True, slots=True)
class HashEncoder:
    """Another `seed` or `dimension` acts as another model: its fingerprint and embeddings differ."""

    dimension: int = 64
    seed: int = 0
    max_crops: int = 1
    limits: ImageLimits = field(default_factory=ImageLimits)

    @property
    def fingerprint(self) -> EncoderFingerprint:
        digest = f"{crc32(str(self.seed).encode()):08x}" * 8
        windowing = Cropping.at_most(self.max_crops).written_behind(f"{WINDOWING} tokenizer=words")
        return EncoderFingerprint("hash", digest, self.dimension, "8x8", windowing)

    def prepare_image(self, data: bytes) -> PreparedImage:
        middle, *others = read_crops(data, RESIZING, self.limits, Cropping.at_most(self.max_crops))
        return PreparedImage(middle, tuple(others))

    def prepare_text(self, text: str) -> PreparedText:
        check_not_blank(text)
        words = re.findall(r"\w+|[^\w\s]", text.lower())
        ids = [crc32(word.encode()) % (2**31 - 3) + 3 for word in words]
        windows = build_windows(ids, WINDOWING, start_token=START, end_token=END)
        return PreparedText(windows, len(ids) > WINDOWING.max_tokens)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        return [self._embed(item) for item in prepared]

    def _embed(self, item: Prepared) -> Embeddings:
        if isinstance(item, PreparedImage):
            return _unit(np.stack([self._direction(crc32(crop.tobytes())) for crop in item.crops]))
        return np.stack([self._embed_words(row[row > END]) for row in item.tokens])

    def _embed_words(self, words: NDArray[np.int32]) -> Embeddings:
        directions = np.stack([self._direction(int(word)) for word in words])
        return _unit(directions.sum(axis=0))

    def _direction(self, key: int) -> NDArray[np.float64]:
        return np.random.default_rng((self.seed, key)).standard_normal(self.dimension)


def _unit(vectors: NDArray[np.float64]) -> Embeddings:
    unit: Embeddings = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    return unit


def draw_picture(seed: int, *, size: tuple[int, int] = (32, 24), image_format: str = "PNG") -> bytes:
    """Draw a small coloured pattern as an image file. Another seed gives another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    output = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(output, image_format)
    return output.getvalue()
