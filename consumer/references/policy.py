"""Which references may be fetched, and how long a failing one is tried again. Pure.

A reference is refused unless an operator has named its host, bucket or root. Hosts are compared by
name, as the reference writes it. cliptide does not check which address the name resolves to, so
name only hosts whose DNS you trust. An IP address, such as that of a cloud's metadata service, is a
host like any other and refused unless named. Redirects are not followed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

StoreKind: TypeAlias = Literal["http", "bucket", "file"]
BUCKET_SCHEMES = frozenset({"s3", "gs", "az"})


class ReferenceRefused(Exception):
    """The settings do not allow the reference: its record becomes a dead letter at once."""

    reason = "reference_refused"


class ReferenceTooLarge(ReferenceRefused):
    """The content is larger than the settings allow."""

    reason = "reference_too_large"


class ReferenceAbsent(Exception):
    """The content is absent, or not what the event says: a dead letter after the grace time.

    `reason` is the dead letter's code.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class ReferenceUnreachable(Exception):
    """The store did not answer: a dead letter after the patience, if other fetches succeed meanwhile."""


class ReferenceWithheld(ReferenceUnreachable):
    """The store answered, and does not give the content now: a dead letter after the patience.

    Its answer proves that the network and the store are there, so other fetches need not prove it.
    """


@dataclass(frozen=True, slots=True)
class ReferencePolicy:
    """What may be fetched. A host is `name` or `name:port`, a bucket is `s3://name`."""

    hosts: frozenset[str] = frozenset()
    buckets: frozenset[str] = frozenset()
    file_roots: tuple[Path, ...] = ()
    http_schemes: frozenset[str] = frozenset({"https"})
    max_size_bytes: int = 64 * 1024 * 1024

    def admit(self, uri: str, size_bytes: int | None) -> StoreKind:
        """Say which kind of store serves the reference, or raise `ReferenceRefused`."""
        if size_bytes is not None:
            self.admit_size(size_bytes)
        parts = _split(uri)
        if parts.scheme in self.http_schemes:
            return self._admit_host(parts)
        if parts.scheme in BUCKET_SCHEMES:
            return self._admit_bucket(parts)
        if parts.scheme == "file":
            return "file"  # `file_path` checks the root, because only the file system can resolve links
        raise ReferenceRefused(f"the scheme {parts.scheme!r} is not allowed")

    def admit_size(self, size_bytes: int) -> None:
        if size_bytes > self.max_size_bytes:
            raise ReferenceTooLarge(f"{size_bytes} bytes are more than {self.max_size_bytes} allowed")

    def file_path(self, uri: str) -> tuple[Path, Path]:
        """Return the root and the path inside it, with symbolic links resolved in both."""
        parts = _split(uri)
        if parts.netloc not in ("", "localhost"):
            raise ReferenceRefused("a file reference must not name a host")
        path = _resolve(parts.path)
        for root in self.file_roots:
            resolved = root.resolve()
            if path.is_relative_to(resolved):
                return resolved, path
        raise ReferenceRefused("the file is not below an allowed root")

    def _admit_host(self, parts: SplitResult) -> StoreKind:
        if "@" in parts.netloc:
            raise ReferenceRefused("credentials in a reference are not allowed")
        if parts.netloc.lower() not in self.hosts:
            raise ReferenceRefused(f"the host {parts.netloc!r} is not allowed")
        return "http"

    def _admit_bucket(self, parts: SplitResult) -> StoreKind:
        bucket = f"{parts.scheme}://{parts.netloc}"
        if bucket not in self.buckets:
            raise ReferenceRefused(f"the bucket {bucket!r} is not allowed")
        return "bucket"


def _split(uri: str) -> SplitResult:
    try:
        return urlsplit(uri)
    except ValueError as error:
        raise ReferenceRefused(f"not a URI: {error}") from error


def _resolve(path: str) -> Path:
    try:
        return Path(unquote(path)).resolve()
    except (ValueError, RuntimeError) as error:  # not a file name; before Python 3.13 a loop of links
        raise ReferenceRefused(f"not a path: {type(error).__name__}") from error


@dataclass(frozen=True, slots=True)
class ReferencePatience:
    """How long a failing reference is tried again."""

    grace_seconds: float = 30.0
    patience_seconds: float = 300.0

    def is_over(
        self,
        error: ReferenceAbsent | ReferenceUnreachable,
        *,
        failing_since: float,
        other_success_at: float | None,
        now: float,
    ) -> bool:
        """Whether to set the record aside. `failing_since` is when it first failed in this way.

        For an unreachable store, the record is set aside only if another fetch has succeeded since
        this one began to fail (`other_success_at`). Otherwise the network may be down, and waiting
        loses nothing.
        """
        if isinstance(error, ReferenceAbsent):
            return now - failing_since >= self.grace_seconds
        if isinstance(error, ReferenceWithheld):
            return now - failing_since >= self.patience_seconds
        others_succeed = other_success_at is not None and other_success_at >= failing_since
        return others_succeed and now - failing_since >= self.patience_seconds
