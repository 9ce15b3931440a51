"""The seam to a CLIP model: bytes and texts in, embeddings out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.encoder.picture_crops import max_crops_of, without_crops


@dataclass(frozen=True, slots=True)
class EncoderFingerprint:
    """What decides an embedding. All embeddings of an index come from encoders of one fingerprint.

    Precision is not part of it: it changes an embedding by rounding only. `weights_digest` is a
    hexadecimal digest of the tensors; `preprocessing` and `windowing` are canonical texts of
    their parameters.
    """

    architecture: str
    weights_digest: str
    dimension: int
    preprocessing: str
    windowing: str

    @property
    def short(self) -> str:
        """Twelve hexadecimal digits for messages and logs."""
        canonical = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.sha256(canonical).hexdigest()[:12]

    def has_same_model_as(self, other: EncoderFingerprint) -> bool:
        """Whether one's queries find the other's contents, however many crops of a picture each encodes."""
        return self._without_crops() == other._without_crops()

    def _without_crops(self) -> EncoderFingerprint:
        return replace(self, windowing=without_crops(self.windowing))

    def __str__(self) -> str:
        most = max_crops_of(self.windowing)
        crops = "" if most == 1 else f", up to {most} crops of a picture"
        return f"{self.architecture} ({self.dimension} dimensions, fingerprint {self.short}{crops})"


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A decoded, resized and cropped picture: uint8, shape (height, width, 3), RGB, not normalised.

    `further` are the other crops of a wide or tall picture.
    """

    pixels: NDArray[np.uint8]
    further: tuple[NDArray[np.uint8], ...] = ()

    @property
    def crops(self) -> NDArray[np.uint8]:
        """All crops, shape (crops, height, width, 3); the middle one comes first."""
        return np.stack([self.pixels, *self.further])

    @property
    def num_rows(self) -> int:
        """The number of its embeddings: one for each crop."""
        return 1 + len(self.further)


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A tokenised text: int32, shape (windows ≥ 1, context length), padded.

    `is_truncated` tells that the text did not fit, so that the windows hold only its beginning.
    """

    tokens: NDArray[np.int32]
    is_truncated: bool = False

    @property
    def num_rows(self) -> int:
        """The number of its embeddings: one for each window."""
        return len(self.tokens)


Prepared: TypeAlias = PreparedImage | PreparedText


class Encoder(Protocol):
    """Maps contents to embeddings.

    The two `prepare_*` methods are thread-safe and run in parallel to `encode`, which is
    called from one thread at a time. They raise `BadContent` for a content that can never
    be encoded. Any other exception is a fault of the process.
    """

    @property
    def fingerprint(self) -> EncoderFingerprint: ...

    def prepare_image(self, data: bytes) -> PreparedImage: ...

    def prepare_text(self, text: str) -> PreparedText: ...

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        """Return one (rows, dimension) float32 array of unit vectors for each item, in order."""
