"""The seam to a CLIP model: bytes and texts in, embeddings out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings


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

    def __str__(self) -> str:
        return f"{self.architecture} ({self.dimension} dimensions, fingerprint {self.short})"


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """A decoded, resized and cropped picture: uint8, shape (height, width, 3), RGB, not normalised."""

    pixels: NDArray[np.uint8]

    @property
    def num_rows(self) -> int:
        """The number of its embeddings."""
        return 1


@dataclass(frozen=True, slots=True)
class PreparedText:
    """A tokenised text: int32, shape (windows ≥ 1, context length), zero-padded.

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
