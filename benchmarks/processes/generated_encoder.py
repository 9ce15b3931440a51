"""An encoder that takes no time: the bytes of a picture are the number of a generated row."""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np

from benchmarks.data import DIMENSION, draw_rows, draw_space
from benchmarks.indexes.searched_index import SEED
from clip_index.content import Embeddings
from clip_index.encoder.protocol import EncoderFingerprint, Prepared, PreparedImage, PreparedText

FINGERPRINT = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")
NUM_ROWS = 65_536


class GeneratedEncoder:
    """Implements `Encoder`. Its rows resemble those of the generated indexes, but none is in an index.

    Bytes that are not a number (the canary's) are numbered by their checksum.
    """

    fingerprint = FINGERPRINT

    def __init__(self) -> None:
        self._rows = draw_rows(draw_space(SEED), "image", NUM_ROWS, SEED + 1)

    def prepare_image(self, data: bytes) -> PreparedImage:
        number = int(data) if data.isdigit() else crc32(data)
        return PreparedImage(np.array([number], np.uint32).view(np.uint8))

    def prepare_text(self, text: str) -> PreparedText:
        return PreparedText(np.array([[len(text)]], np.int32))

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        numbers = [_number(item) % NUM_ROWS for item in prepared]
        return [self._rows[n : n + 1] for n in numbers]


def _number(item: Prepared) -> int:
    return int(item.tokens[0, 0] if isinstance(item, PreparedText) else item.pixels.view(np.uint32)[0])
