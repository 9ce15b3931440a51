"""Compares the bytes of a reference with what its event says of them, as they arrive."""

from __future__ import annotations

import hashlib

from consumer.references.policy import ReferenceAbsent, ReferencePolicy
from schemas.events import ContentReference


class ReceivedBytes:
    """Collects bytes. `add` and `finish` raise `ReferenceAbsent` or `ReferenceRefused` if they are others.

    It holds at most one chunk more than the event promises or, where it promises nothing, the policy allows.
    """

    def __init__(self, reference: ContentReference, policy: ReferencePolicy) -> None:
        self._reference = reference
        self._policy = policy
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        self._data += chunk
        promised = self._reference.size_bytes
        if promised is None:
            self._policy.admit_size(len(self._data))
        elif len(self._data) > promised:
            raise ReferenceAbsent("size_mismatch", f"more than the promised {promised} bytes")

    def finish(self) -> bytes:
        promised, digest = self._reference.size_bytes, self._reference.sha256
        if promised is not None and len(self._data) < promised:
            detail = f"{len(self._data)} bytes instead of the promised {promised}"
            raise ReferenceAbsent("size_mismatch", detail)
        if digest is not None and hashlib.sha256(self._data).hexdigest() != digest:
            raise ReferenceAbsent("digest_mismatch", "the bytes have another sha256 than promised")
        return bytes(self._data)
