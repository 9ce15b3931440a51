"""Where uploaded contents are kept: a directory or a bucket, each content under its SHA-256 digest."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol, TypeGuard
from urllib.parse import quote, urlsplit

import obstore
import structlog
from obstore.exceptions import BaseError

from clip_index.storage.buckets.object_bucket import NO_CREDENTIALS, are_credentials_missing
from clip_index.storage.durable_files import create_exclusively, make_directory
from service.buckets import open_bucket

log = structlog.get_logger()
_TIMEOUT_SECONDS = 10.0
_SIGNED_FOR = timedelta(hours=1)
_SIGNED_AGAIN_SECONDS = _SIGNED_FOR.total_seconds() / 2
_MAX_SIGNED = 10_000
_KEY = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")
_MEDIA_TYPES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)
_SAMPLE = f"00/{'0' * 64}"


class BucketTrouble(OSError):
    """The bucket did not do what was asked; the message says what obstore said of it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Where a content lies: for consumers, and the link for people (None if nobody can open it)."""

    uri: str
    link: str | None


class ContentsStore(Protocol):
    """Keeps contents by digest. A second content of one digest changes nothing. Thread-safe."""

    @property
    def link_host(self) -> str | None:
        """The host, with a port if one is named, of the links that people open; None without links."""
        ...

    def keep(self, digest: str, data: bytes) -> Kept:
        """Keep the bytes; blocking. Raises `OSError`."""
        ...


@dataclass(frozen=True, slots=True)
class DirectoryContents:
    """Implements `ContentsStore`. People open a content below `base_url`, if there is one."""

    directory: Path
    base_url: str | None = None

    @property
    def link_host(self) -> str | None:
        return None if self.base_url is None else urlsplit(self.base_url).netloc

    def keep(self, digest: str, data: bytes) -> Kept:
        key = _key_of(digest)
        path = self.directory.resolve() / key
        if not path.exists():
            make_directory(path.parent)
            create_exclusively(path, data)
        return Kept(path.as_uri(), _public(self.base_url, key))


class BucketContents:
    """Implements `ContentsStore` in `s3://`, `gs://` or `az://`.

    People open a content below `base_url`. Without that, its link is its address in the bucket, and
    answers show a signed address in its place, which is good for half an hour at
    least.
    """

    def __init__(self, url: str, base_url: str | None = None) -> None:
        """Raises `BucketTrouble` if the bucket's settings cannot be used, or the credentials that sign."""
        parts = urlsplit(url)
        self._address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/"
        self._base_url = base_url
        self._signed: dict[str, tuple[str, float]] = {}
        try:
            self._bucket = open_bucket(self._address.rstrip("/"), _TIMEOUT_SECONDS)
            address = base_url or self._sign([_SAMPLE])[_SAMPLE]
        except (BaseError, ValueError) as error:
            raise BucketTrouble(_first_line(error)) from error
        self.link_host: str | None = urlsplit(address).netloc

    @property
    def is_public(self) -> bool:
        return self._base_url is not None

    def keep(self, digest: str, data: bytes) -> Kept:
        key = _key_of(digest)
        try:
            if not self._holds(key):
                obstore.put(self._bucket, key, data, attributes={"Content-Type": media_type_of(data)})
        except BaseError as error:
            raise BucketTrouble(f"{type(error).__name__}: {_first_line(error)}") from error
        uri = f"{self._address}{key}"
        return Kept(uri, _public(self._base_url, key) or uri)

    def _holds(self, key: str) -> bool:
        try:
            obstore.head(self._bucket, key)
        except FileNotFoundError:
            return False
        return True

    def shown_links(self, links: Sequence[str | None]) -> list[str | None]:
        """Return the links with a signed address in place of each that names one of the kept contents.

        Other objects of the bucket are not signed, because a link comes from whoever uploads. Blocking
        where the credentials come from the network.
        """
        now = time.monotonic()
        keys = {link: key for link in links if link is not None and (key := self._key_in(link)) is not None}
        if not keys:
            return list(links)
        try:
            self._renew({key for key in keys.values() if not self._is_fresh(key, now)}, now)
        except BaseError as error:
            log.warning("links cannot be signed", error=_first_line(error))
        signed = {link: self._signed[key][0] for link, key in keys.items() if key in self._signed}
        return [link if link is None else signed.get(link, link) for link in links]

    def _key_in(self, link: str) -> str | None:
        key = link.removeprefix(self._address)
        return key if key != link and _KEY.fullmatch(key) else None

    def _is_fresh(self, key: str, now: float) -> bool:
        signed = self._signed.get(key)
        return signed is not None and now - signed[1] < _SIGNED_AGAIN_SECONDS

    def _renew(self, keys: set[str], now: float) -> None:
        """Sign keys. An address is shown for half an hour, so that browsers can cache the picture."""
        if len(self._signed) + len(keys) > _MAX_SIGNED:
            self._signed = {}
        self._signed |= {key: (address, now) for key, address in self._sign(sorted(keys)).items()}

    def _sign(self, keys: Sequence[str]) -> Mapping[str, str]:
        if not keys:
            return {}
        return dict(zip(keys, obstore.sign(self._bucket, "GET", keys, _SIGNED_FOR), strict=True))


def is_signing(contents: ContentsStore | None) -> TypeGuard[BucketContents]:
    """Whether answers show signed addresses, because a bucket is private."""
    return isinstance(contents, BucketContents) and not contents.is_public


def _first_line(error: Exception) -> str:
    """obstore appends pages of debugging, which may quote what the bucket answered."""
    if are_credentials_missing(error):
        return NO_CREDENTIALS
    return str(error).partition("\n")[0][:300]


def media_type_of(data: bytes) -> str:
    """The type that a browser needs to show a picture, by its first bytes."""
    for beginning, media_type in _MEDIA_TYPES:
        if data.startswith(beginning):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return "image/avif" if data[4:12] == b"ftypavif" else "application/octet-stream"


def _key_of(digest: str) -> str:
    return f"{digest[:2]}/{digest}"


def _public(base_url: str | None, key: str) -> str | None:
    return None if base_url is None else f"{base_url.rstrip('/')}/{quote(key)}"
