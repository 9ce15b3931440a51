"""The interests of owners, kept, because finding them costs a hundred searches."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TypeAlias

from aiohttp import web

from clip_index.content import MODALITIES, Modality
from clip_index.storage.bounded_cache import BoundedCache
from query_api.recommend.interests import Interest, PastUpload, find_interests
from query_api.recommend.recommendation import find_history
from query_api.serving.engine import Snapshot
from query_api.serving.former_searchers import generations_of

MAX_BYTES = 16 * 2**20
_MAX_ENTRIES = 10_000
_INTEREST_BYTES = 500  # beside its embedding

_Found: TypeAlias = tuple[Interest, ...]


class OwnerInterests:
    """Keeps what was found by the generations of the shards, and by the history.

    While an owner's history stays the same, a new generation costs only reading it again. Keys are
    digests, and the kept interests are bounded in bytes. Thread-safe.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._of_generations = _cache(max_bytes // 2)
        self._of_history = _cache(max_bytes // 2)

    def find(
        self, searcher: Snapshot, owner_id: str, modalities: Collection[Modality] = MODALITIES
    ) -> _Found:
        """Return what `find_interests` finds in the owner's newest uploads of these modalities. Blocking."""
        key = _digest(repr(generations_of(searcher)), owner_id, *sorted(modalities))
        return self._of_generations.find_or_build(
            key, lambda: self._find_in(find_history(searcher, owner_id, modalities))
        )

    def _find_in(self, history: Sequence[PastUpload]) -> _Found:
        parts = (
            part
            for upload in history
            for part in (upload.content_id, str(upload.occurred_at_ms), upload.embedding.tobytes())
        )
        return self._of_history.find_or_build(
            _digest(*parts), lambda: tuple(map(_detached, find_interests(history)))
        )


OWNER_INTERESTS = web.AppKey("owner_interests", OwnerInterests)


def _cache(max_bytes: int) -> BoundedCache[bytes, _Found]:
    return BoundedCache(_MAX_ENTRIES, max_bytes=max_bytes, size_of=_size_of)


def _size_of(interests: _Found) -> int:
    return _INTEREST_BYTES + sum(_INTEREST_BYTES + one.medoid.embedding.nbytes for one in interests)


def _detached(interest: Interest) -> Interest:
    """Copy the embedding, so that it keeps no array of the index or of the whole history."""
    return replace(interest, medoid=replace(interest.medoid, embedding=interest.medoid.embedding.copy()))


def _digest(*parts: str | bytes) -> bytes:
    """Return a digest in which the ends of the parts count."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.digest()
