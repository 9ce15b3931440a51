"""What the index is told, and what it keeps of a content."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Modality: TypeAlias = Literal["text", "image"]
MODALITIES: tuple[Modality, ...] = ("text", "image")
MetadataValue: TypeAlias = str | float | bool
Embeddings: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EncodedContent:
    """An upload event, encoded.

    `embeddings` has shape (n ≥ 1, dimension), float32, L2-normalised: one row for an
    image, one for each window of a text. `occurred_at_ms` counts from 1970, UTC.
    """

    content_id: str
    offset: int
    modality: Modality
    embeddings: Embeddings
    source: str
    occurred_at_ms: int
    version: int | None = None
    owner_id: str | None = None
    link: str | None = None
    text: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    thumbnail: bytes | None = None


@dataclass(frozen=True, slots=True)
class RemovedContent:
    """A delete event."""

    content_id: str
    offset: int
    version: int | None = None


Change: TypeAlias = EncodedContent | RemovedContent


@dataclass(frozen=True, slots=True)
class Delta:
    """The changes of the log range `[from_offset, next_offset)`, in offset order.

    Offsets without a change (dead letters, transaction markers) are covered all the same.
    """

    from_offset: int
    next_offset: int
    changes: Sequence[Change] = ()


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A live content as a segment holds it, without its embeddings."""

    content_id: str
    offset: int
    modality: Modality
    source: str
    occurred_at_ms: int
    version: int | None
    owner_id: str | None
    link: str | None
    text: str | None
    metadata: Mapping[str, MetadataValue]


def unit_mean(rows: Embeddings) -> Embeddings:
    """Return the mean direction, shape (dimension,), of unit rows of shape (n ≥ 1, dimension)."""
    mean = rows.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)
