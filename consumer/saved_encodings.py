"""Encodes nothing twice: what was computed from the same bytes before is taken from there.

A digest names the bytes of a content together with everything that decides what is computed from
them: the encoder's fingerprint (with windows and crops), the limits of pictures, the thumbnails. So
equal digests mean equal embeddings, and it does not matter who uploaded the bytes before, in which
record, or whether that content is live. In particular nothing depends on a takeover, a merge or a
delete: a content that is gone only makes the next upload of its bytes cost an encoding.

Whoever uploads bytes has them. So nobody learns anything here that the encoder would not tell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from clip_index.content import Derived, Embeddings, Modality
from clip_index.encoder.protocol import EncoderFingerprint, Prepared, PreparedImage, PreparedText
from clip_index.storage.bounded_cache import BoundedCache

_FORMAT = 1  # another number makes every upload be encoded anew
_MAX_ENTRIES = 100_000
_MAX_RECENT_BYTES = 16 * 2**20  # 7,000 embeddings of 512 dimensions
_MAX_DEVIATION = 1e-2  # of an embedding's length from 1; fp16 numbers deviate by 1e-3 at most


class ContentDigests:
    """Names contents by what is computed from them. `recipe` is what decides it besides the encoder."""

    def __init__(self, fingerprint: EncoderFingerprint, recipe: str) -> None:
        known = json.dumps([_FORMAT, asdict(fingerprint), recipe], sort_keys=True).encode()
        self._begun: Mapping[Modality, bytes] = {
            "text": hashlib.sha256(b"text " + known).digest(),
            "image": hashlib.sha256(b"image " + known).digest(),
        }

    def of(self, modality: Modality, sha256: bytes) -> bytes:
        """Return the digest of the content whose bytes have this SHA-256.

        It is a whole SHA-256, because uploaders are strangers: with half of one, somebody could make two
        pictures of one digest, and the second would be shown as the first.
        """
        return hashlib.sha256(self._begun[modality] + sha256).digest()


class StoredContents(Protocol):
    """The committed contents that this process writes. Thread-safe."""

    def find_derived(self, partition: int, digest: bytes) -> Derived | None:
        """Return what is stored of the bytes with this digest; the partition is where to look first."""


class NothingStored:
    """Implements `StoredContents` for a consumer that is to encode every upload."""

    def find_derived(self, partition: int, digest: bytes) -> Derived | None:
        return None


class SavedCounter(Protocol):
    """Is told of each upload that was not encoded."""

    def inc(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PreparedContent:
    """What is known of a content before it is encoded."""

    prepared: Prepared
    thumbnail: bytes | None = None

    @property
    def size_bytes(self) -> int:
        one = self.prepared
        rows = one.num_rows * one.pixels.nbytes if isinstance(one, PreparedImage) else one.tokens.nbytes
        return rows + len(self.thumbnail or b"")

    @property
    def is_truncated(self) -> bool:
        return isinstance(self.prepared, PreparedText) and self.prepared.is_truncated


class SavedEncodings:
    """Knows what was prepared and encoded lately, and asks the index for what was committed. Thread-safe.

    What is being prepared is shared too, so that one picture that comes ten times in a row is decoded
    once. Of two threads that prepare the same bytes at the same moment, both do it.
    """

    def __init__(self, digests: ContentDigests, stored: StoredContents, counter: SavedCounter) -> None:
        self.digest_of = digests.of
        self._stored = stored
        self._counter = counter
        self._prepared: BoundedCache[bytes, PreparedContent] = BoundedCache(
            _MAX_ENTRIES, size_of=lambda content: content.size_bytes
        )
        self._recent: BoundedCache[bytes, Derived] = BoundedCache(
            _MAX_ENTRIES, max_bytes=_MAX_RECENT_BYTES, size_of=_size_of
        )

    def find(self, partition: int, digest: bytes) -> Derived | None:
        """Return what was computed from these bytes before, and count it; None if they must be encoded."""
        derived = self._recent.find(digest) or self._find_stored(partition, digest)
        if derived is not None:
            self._counter.inc()
        return derived

    def prepare(self, digest: bytes, build: Callable[[], PreparedContent]) -> PreparedContent:
        """Return what another upload of these bytes has prepared, or prepare them."""
        return self._prepared.find_or_build(digest, build)

    def encode(
        self,
        contents: Sequence[tuple[bytes, PreparedContent]],
        encode: Callable[[Sequence[Prepared]], list[Embeddings]],
    ) -> list[Embeddings]:
        """Return the embeddings of each content, in order. Contents of one digest are encoded once."""
        found = {digest: self._recent.find(digest) for digest, _ in contents}
        fresh = {digest: content for digest, content in contents if found[digest] is None}
        if fresh:
            encoded = encode([content.prepared for content in fresh.values()])
            for (digest, content), embeddings in zip(fresh.items(), encoded, strict=True):
                found[digest] = self._keep(digest, content, embeddings)
        for _ in range(len(contents) - len(fresh)):
            self._counter.inc()
        return [derived.embeddings for digest, _ in contents if (derived := found[digest]) is not None]

    def _find_stored(self, partition: int, digest: bytes) -> Derived | None:
        derived = self._stored.find_derived(partition, digest)
        return derived if derived is not None and _is_sound(derived.embeddings) else None

    def _keep(self, digest: bytes, content: PreparedContent, embeddings: Embeddings) -> Derived:
        derived = Derived(embeddings, content.thumbnail, content.is_truncated)
        self._recent.keep(digest, derived)
        self._prepared.drop(digest)
        return derived


def _is_sound(embeddings: Embeddings) -> bool:
    """Whether these are unit vectors. A file that was damaged since it was verified may hold others."""
    lengths = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings))
    return len(lengths) > 0 and bool((np.abs(lengths - 1.0) < _MAX_DEVIATION).all())


def _size_of(derived: Derived) -> int:
    return int(derived.embeddings.nbytes) + len(derived.thumbnail or b"")
