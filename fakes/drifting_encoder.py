"""An encoder that encodes otherwise than it did, as one does behind another version of a library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clip_index.content import Embeddings, Modality
from clip_index.encoder.protocol import EncoderFingerprint, Prepared, PreparedImage, PreparedText
from fakes.hash_encoder import HashEncoder


@dataclass
class DriftingEncoder:
    """A hashing encoder whose embeddings of one modality are turned to this cosine with what they were."""

    cosine: float = 1.0
    modality: Modality = "image"
    number_format: str | None = None

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return HashEncoder().fingerprint

    def prepare_image(self, data: bytes) -> PreparedImage:
        return HashEncoder().prepare_image(data)

    def prepare_text(self, text: str) -> PreparedText:
        return HashEncoder().prepare_text(text)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        kind = PreparedImage if self.modality == "image" else PreparedText
        found = HashEncoder().encode(prepared)
        return [
            self._turned(rows) if isinstance(one, kind) else rows
            for one, rows in zip(prepared, found, strict=True)
        ]

    def _turned(self, rows: Embeddings) -> Embeddings:
        beside = np.roll(rows, 1, axis=1)
        beside -= (beside * rows).sum(axis=1, keepdims=True) * rows
        beside /= np.linalg.norm(beside, axis=1, keepdims=True)
        return np.asarray(self.cosine * rows + np.sqrt(1 - self.cosine**2) * beside, np.float32)
