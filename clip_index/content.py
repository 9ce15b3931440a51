"""What the index is told about a content, and what it keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Modality: TypeAlias = Literal["text", "image"]
VectorForm: TypeAlias = Literal["fp16", "sq8"]
"""What the lists of merged segments hold: embeddings, or codes of 8 bits a dimension."""

MODALITIES: tuple[Modality, ...] = ("text", "image")
MetadataScalar: TypeAlias = str | float | bool
MetadataValue: TypeAlias = MetadataScalar | tuple[str, ...]
Embeddings: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentFacts:
    """What an upload event says about a content, kept as it is and shown in answers.

    This is the list of these fields: the columns of a segment, their writing and their reading
    follow from it, in this order. A field that is added gets a default, which the contents of older
    segments have. `occurred_at_ms` counts from 1970, UTC. `sha256` is the digest, 64 hexadecimal digits,
    of the bytes that a reference gave. `is_truncated` says that only the beginning of the text is indexed.
    `patched_at_ms` is when a patch last changed the other facts; None since the last upload.
    """

    source: str
    owner_id: str | None = None
    occurred_at_ms: int
    link: str | None = None
    text: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    title: str | None = None
    sha256: str | None = None
    is_truncated: bool = False
    patched_at_ms: int | None = None


FACT_NAMES: tuple[str, ...] = tuple(one.name for one in fields(ContentFacts))
LongFact: TypeAlias = Literal["text", "metadata"]
LONG_FACTS: frozenset[LongFact] = frozenset({"text", "metadata"})
"""Facts that may be long. They are read only if somebody asks for them."""


@dataclass(frozen=True, slots=True)
class Derived:
    """What was computed from the bytes of a content. Equal bytes give equal values, whoever uploads them."""

    embeddings: Embeddings
    thumbnail: bytes | None = None
    is_truncated: bool = False


DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class EncodedContent:
    """An upload event, encoded.

    `embeddings` has shape (n ≥ 1, dimension), float32, L2-normalised: one row for an
    image, one for each window of a text. `digest`, of `DIGEST_BYTES`, names the bytes that everything
    derived was computed from, and how: contents of one digest have the same `Derived`.
    """

    content_id: str
    offset: int
    modality: Modality
    embeddings: Embeddings
    facts: ContentFacts
    version: int | None = None
    thumbnail: bytes | None = None
    digest: bytes | None = None


@dataclass(frozen=True, slots=True)
class RemovedContent:
    """A delete event."""

    content_id: str
    offset: int
    version: int | None = None


@dataclass(frozen=True, slots=True)
class PatchedContent:
    """A patch event: new values of some facts of a content, whose bytes and embeddings stay.

    `removed` names what the content loses first: `title`, `link`, `metadata` (all of it) or `metadata.KEY`.
    A title or a link that is None stays as it is. `occurred_at_ms` counts from 1970, UTC.
    """

    content_id: str
    offset: int
    occurred_at_ms: int
    title: str | None = None
    link: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()


Change: TypeAlias = EncodedContent | RemovedContent | PatchedContent


@dataclass(frozen=True, slots=True)
class Delta:
    """The changes of the log range `[from_offset, next_offset)`, in offset order.

    The range also covers offsets without a change: dead letters and transaction markers. Every record up to
    `watermark_ms` (ms since 1970) has an offset below `next_offset`, where that is known.
    """

    from_offset: int
    next_offset: int
    changes: Sequence[Change] = ()
    watermark_ms: int | None = None


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A live content as a segment holds it, without its embeddings."""

    content_id: str
    offset: int
    modality: Modality
    version: int | None
    facts: ContentFacts


class Headline(NamedTuple):
    """What every answer shows of a live content. A tuple, because answers are made of many."""

    content_id: str
    modality: Modality
    source: str
    owner_id: str | None
    occurred_at_ms: int
    link: str | None
    title: str | None
    version: int | None


def unit_mean(rows: Embeddings) -> Embeddings:
    """Return the mean direction, shape (dimension,), of unit rows of shape (n ≥ 1, dimension)."""
    mean = rows.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def identity_of(rows: Embeddings) -> bytes:
    """Return what all contents with the same embeddings (n, dimension) have in common.

    The order of the rows does not count, because each segment holds a content's windows in its own order.
    """
    return b"".join(sorted(row.tobytes() for row in rows))
