"""API keys. Only their digests are known; keys for reading and keys for writing are two sets."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from query_api.contract.route import Access
from query_api.errors import ApiError

CHALLENGE = {"WWW-Authenticate": "Bearer"}


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """SHA-256 digests (32 bytes each) of the keys that may read, and of those that may write.

    A key that may do both is in both sets. If both sets are empty, everybody may do everything.
    """

    read: frozenset[bytes] = frozenset()
    write: frozenset[bytes] = frozenset()

    @classmethod
    def from_hex(cls, read: Iterable[str], write: Iterable[str]) -> ApiKeys:
        return cls(frozenset(map(bytes.fromhex, read)), frozenset(map(bytes.fromhex, write)))

    @property
    def are_required(self) -> bool:
        return bool(self.read or self.write)

    def check(self, digest: bytes | None, access: Access) -> None:
        """Raise `ApiError` (401 or 403) if the key of this digest does not give the access."""
        if access == "open" or not self.are_required:
            return
        if digest is None:
            message = "send an API key in the header Authorization: Bearer KEY, or api-key: KEY"
            raise ApiError("key_required", message, headers=CHALLENGE)
        may_read, may_write = _is_among(digest, self.read), _is_among(digest, self.write)
        if not (may_read or may_write):
            raise ApiError("unknown_key", "unknown API key", headers=CHALLENGE)
        if not (may_read if access == "read" else may_write):
            raise ApiError("forbidden", f"this API key may not {access}")


def digest_of(key: str) -> bytes:
    """Return the SHA-256 digest of a key, 32 bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _is_among(digest: bytes, known: frozenset[bytes]) -> bool:
    """Compare with every known key, so that the time does not tell which one was close."""
    return sum(hmac.compare_digest(digest, other) for other in known) > 0
