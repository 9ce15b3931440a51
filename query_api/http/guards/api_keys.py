"""API keys. Only their digests are known. Keys to read, keys to write and admin keys are three sets."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass

from query_api.contract.route import Access
from query_api.errors import ApiError

CHALLENGE = {"WWW-Authenticate": "Bearer"}
_DOES = {"read": "read", "write": "write", "admin": "see what the operator sees"}


@dataclass(frozen=True, slots=True)
class ApiKeys:
    """SHA-256 digests (32 bytes each) of the keys that may read, and of those that may write.

    A key that may do both is in both sets. If both sets are empty, everybody may read and write. What needs
    an admin key is never open to everybody.
    """

    read: frozenset[bytes] = frozenset()
    write: frozenset[bytes] = frozenset()
    admin: frozenset[bytes] = frozenset()

    @classmethod
    def from_hex(cls, read: Iterable[str], write: Iterable[str], admin: Iterable[str] = ()) -> ApiKeys:
        return cls(*(frozenset(map(bytes.fromhex, digests)) for digests in (read, write, admin)))

    @property
    def are_required(self) -> bool:
        return bool(self.read or self.write)

    def check(self, digest: bytes | None, access: Access) -> None:
        """Raise `ApiError` (401 or 403) if the key of this digest does not give the access."""
        if access == "open" or not (self.are_required or access == "admin"):
            return
        if digest is None:
            message = "send an API key in the header Authorization: Bearer KEY, or api-key: KEY"
            raise ApiError("key_required", message, headers=CHALLENGE)
        known = {"read": self.read, "write": self.write, "admin": self.admin}
        allowed = {kind for kind, digests in known.items() if _is_among(digest, digests)}
        if not allowed:
            raise ApiError("unknown_key", "unknown API key", headers=CHALLENGE)
        if access not in allowed:
            raise ApiError("forbidden", f"this API key may not {_DOES[access]}")


def digest_of(key: str) -> bytes:
    """Return the SHA-256 digest of a key, 32 bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _is_among(digest: bytes, known: frozenset[bytes]) -> bool:
    """Compare with every known key, so that the time does not tell which one was close."""
    return sum(hmac.compare_digest(digest, other) for other in known) > 0
