"""The canary is encodable by any encoder."""

from __future__ import annotations

from collections.abc import Sequence

from clip_index.content import Embeddings
from clip_index.encoder.canary import CANARY_PNG, CANARY_TEXT, warm_up
from clip_index.encoder.protocol import EncoderFingerprint, Prepared, PreparedImage, PreparedText
from fakes.hash_encoder import HashEncoder


class CountingEncoder:
    """A hash encoder that remembers how many items each pass had."""

    def __init__(self) -> None:
        self._inner = HashEncoder()
        self.batch_sizes: list[int] = []

    @property
    def fingerprint(self) -> EncoderFingerprint:
        return self._inner.fingerprint

    def prepare_image(self, data: bytes) -> PreparedImage:
        return self._inner.prepare_image(data)

    def prepare_text(self, text: str) -> PreparedText:
        return self._inner.prepare_text(text)

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        self.batch_sizes.append(len(prepared))
        return self._inner.encode(prepared)


def test_warming_up_encodes_both_modalities_in_every_batch_size() -> None:
    encoder = CountingEncoder()
    warm_up(encoder, (1, 4))
    assert encoder.batch_sizes == [1, 1, 4, 4]


def test_the_canary_is_a_picture_and_a_text() -> None:
    encoder = HashEncoder()
    assert encoder.prepare_image(CANARY_PNG).pixels.shape[-1] == 3
    assert len(encoder.prepare_text(CANARY_TEXT).tokens) == 1
