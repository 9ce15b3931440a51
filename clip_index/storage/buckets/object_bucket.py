"""One bucket through obstore: its requests, and what their failures mean."""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store, from_url

from clip_index.errors import DamagedFile
from clip_index.storage.regular_files import MAX_DOCUMENT_BYTES
from clip_index.storage.shard_store import StoreRefused, StoreUnreachable

AnyStore: TypeAlias = AzureStore | GCSStore | MemoryStore | S3Store
SCHEMES = ("s3", "gs", "az", "memory")

_REQUEST_TIMEOUT = timedelta(seconds=20)
_CONNECT_TIMEOUT = timedelta(seconds=5)
_RETRIES: Any = {
    "max_retries": 3,
    "retry_timeout": timedelta(seconds=20),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=2), "base": 2},
}
_CHUNK_BYTES = 8 * 2**20
"""Of a request for a part of an object, because each request must end within its timeout."""
_MAX_PARTS_AT_ONCE = 8
_ENDPOINT_VARIABLE = re.compile(
    r"AWS_ENDPOINT(_URL(_S3)?)?|GOOGLE_(BASE_URL|ENDPOINT)|AZURE_(STORAGE_)?ENDPOINT"
)
_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|The specified bucket does not exist")
_METADATA_SERVICES = re.compile(
    r"169\.254\.169\.254|latest/api/token|metadata\.google\.internal|metadata/identity"
)
NO_CREDENTIALS = "no credentials were found, such as AWS_ACCESS_KEY_ID"
_FORBIDDEN = re.compile(r"status code: (401|403)\b")
"""A listing that is forbidden is no error of its own kind in obstore."""
_CHANGES_EACH_TIME = re.compile(r"\?\S+| in [\d.]+(ns|µs|ms|s)\b")
"""A query, which may hold a token, and how long the request took."""
_REDIRECTED = "Received redirect without LOCATION"
_CODE = re.compile(r"<Code>(\w[\w.]{0,60})</Code>")
"""The code of an error in the XML of S3, Google and Azure. An answer to HEAD has none."""
_REFUSED_CREDENTIALS = ("AccessDenied", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch")
_TOLD_CODES: Mapping[str, tuple[int, str]] = {
    **dict.fromkeys(
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"),
        (errno.EACCES, "the credentials have expired"),
    ),
    "RequestTimeTooSkewed": (errno.EACCES, "this machine's clock differs from the store's: set it right"),
    "InvalidObjectState": (
        errno.EACCES,
        "the object was moved to an archive: restore it, and leave the index out of the lifecycle rules",
    ),
    **{code: (errno.EACCES, f"the credentials are refused ({code})") for code in _REFUSED_CREDENTIALS},
}
_TRANSIENT_CODES = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentSHA256Mismatch"})
"""What went wrong on the way, although the status is 400."""
_BAD_REQUEST = re.compile(r"status code: 400\b")
_MAX_DETAIL = 300


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What a listing tells of an object; `modified_at` is by the store's clock, in seconds since 1970."""

    size_bytes: int
    modified_at: float


def are_credentials_missing(error: Exception) -> bool:
    """Whether the cloud's metadata service was asked in vain, which is the last resort."""
    return _METADATA_SERVICES.search(str(error)) is not None


class ObjectBucket:
    """Reads and writes whole objects by key. Thread-safe. Blocking.

    Every method raises `StoreUnreachable` (transient) or `StoreRefused` (a person must help); reading also
    raises `FileNotFoundError`. A request that fails is repeated a few times within half a minute, so a
    request may have been carried out although its answer was lost.
    """

    def __init__(self, store: AnyStore, url: str) -> None:
        self._store = store
        self.url = url.rstrip("/")

    def address_of(self, key: str) -> str:
        return f"{self.url}/{key}"

    def put(self, key: str, data: bytes) -> None:
        """Write or replace an object."""
        with self._errors_named(key):
            obstore.put(self._store, key, data, use_multipart=False)

    def put_if_absent(self, key: str, data: bytes) -> None:
        """Write an object; `FileExistsError` if the store says that it exists.

        Both answers may be wrong. "Exists" may mean a conflict in which nothing was stored, or this very
        request, which was carried out, lost its answer and was repeated. An error may hide a success. So
        the caller reads.
        """
        with self._errors_named(key):
            obstore.put(self._store, key, data, mode="create", use_multipart=False)

    def upload(self, key: str, path: Path) -> None:
        """Write an object from a file; a large one in parts. It is visible as a whole or not at all."""
        with self._errors_named(key):
            obstore.put(self._store, key, path, chunk_size=_CHUNK_BYTES, max_concurrency=_MAX_PARTS_AT_ONCE)

    def get(self, key: str, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Read a small object; `DamagedFile` if it is larger than anything that is expected."""
        with self._errors_named(key):
            found = obstore.get(self._store, key)
            if found.meta["size"] > max_bytes:
                raise DamagedFile(
                    self.address_of(key),
                    f"{found.meta['size']} bytes, where at most {max_bytes} are expected",
                )
            return bytes(found.bytes())

    def chunks(self, key: str) -> Iterator[bytes]:
        """Read an object of any size, part by part; a few parts at once, because one stream is slow."""
        return self.chunks_of_range(key, 0, self.facts_of(key).size_bytes)

    def chunks_of_range(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Read the bytes `[start, end)` of an object, or as many of them as it has, as `chunks` does."""
        starts = iter(range(start, end, _CHUNK_BYTES))
        read = partial(self._read_chunk, key, end)
        with ThreadPoolExecutor(_MAX_PARTS_AT_ONCE) as threads:
            ahead = deque(threads.submit(read, n) for n in islice(starts, _MAX_PARTS_AT_ONCE))
            try:
                while ahead:
                    yield ahead.popleft().result()
                    ahead.extend(threads.submit(read, n) for n in islice(starts, 1))
            finally:
                threads.shutdown(cancel_futures=True)

    def _read_chunk(self, key: str, end: int, start: int) -> bytes:
        """Return no bytes if the object ends before `start`, for which stores have no error of its own."""
        length = min(_CHUNK_BYTES, end - start)
        try:
            with self._errors_named(key):
                return bytes(obstore.get_range(self._store, key, start=start, length=length))
        except StoreUnreachable:
            if self.facts_of(key).size_bytes > start:
                raise
            return b""

    def facts_of(self, key: str) -> ObjectFacts:
        with self._errors_named(key):
            return _facts(obstore.head(self._store, key))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are gone already do not count."""
        for key in keys:
            with suppress(FileNotFoundError), self._errors_named(key):
                obstore.delete(self._store, key)

    def list_level(self, prefix: str) -> list[str]:
        """Return the names directly below a prefix, of objects and of folders."""
        with self._errors_named(prefix):
            found = obstore.list_with_delimiter(self._store, prefix)
        objects = (meta["path"] for meta in found["objects"])
        return [path.rsplit("/", 1)[-1] for path in (*objects, *found["common_prefixes"])]

    def list_all(self, prefix: str) -> Mapping[str, ObjectFacts]:
        """Return every object below a prefix, by its key."""
        with self._errors_named(prefix):
            pages = obstore.list(self._store, prefix)
            return {meta["path"]: _facts(meta) for page in pages for meta in page}

    @contextmanager
    def _errors_named(self, key: str) -> Iterator[None]:
        try:
            yield
        except (AlreadyExistsError, PreconditionError) as error:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.address_of(key)) from error
        except FileNotFoundError as error:
            if _NO_BUCKET.search(str(error)):
                raise self._refused(errno.EINVAL, "the bucket does not exist") from error
            raise FileNotFoundError(errno.ENOENT, "no such object", self.address_of(key)) from error
        except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
            refusal = self._refusal_of_code(error)
            raise refusal or self._refused(
                errno.EACCES, f"the credentials are refused: {_detail(error)}"
            ) from error
        except (InvalidPathError, ValueError) as error:
            raise self._refused(errno.EINVAL, f"no object can be named {key!r}: {_detail(error)}") from error
        except (BaseError, OSError) as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> OSError:
        text = str(error)
        if _NO_BUCKET.search(text):
            return self._refused(errno.EINVAL, "the bucket does not exist")
        if (refusal := self._refusal_of_code(error)) is not None:
            return refusal
        if _FORBIDDEN.search(text):
            return self._refused(errno.EACCES, f"the credentials are refused: {_detail(error)}")
        if are_credentials_missing(error):
            return self._refused(errno.EACCES, NO_CREDENTIALS)
        if _REDIRECTED in text:
            return self._refused(errno.EINVAL, "the bucket is in another region: set AWS_REGION")
        return StoreUnreachable(errno.EHOSTUNREACH, f"{self.url}: {_detail(error)}")

    def _refusal_of_code(self, error: Exception) -> StoreRefused | None:
        """Return what the store says that it will not do, and why; None if it says no such thing."""
        text = str(error)
        code = _code_of(text)
        if code is not None and code in _TOLD_CODES:
            return self._refused(*_TOLD_CODES[code])
        if not _BAD_REQUEST.search(text) or code in _TRANSIENT_CODES:
            return None
        why = code or "400 Bad Request, as for credentials that have expired or another AWS_REGION"
        return self._refused(errno.EINVAL, f"the store refuses the request ({why})")

    def _refused(self, number: int, detail: str) -> StoreRefused:
        return StoreRefused(number, f"{self.url}: {detail}")


def open_bucket(url: str) -> ObjectBucket:
    """Open `s3://bucket/prefix`, `gs://`, `az://` or `memory://name`; nothing is asked of it yet.

    obstore finds credentials where the clouds' own tools keep them. Plain HTTP is used only when an endpoint
    of the operator (`AWS_ENDPOINT_URL`) has that scheme, as for a store in a private network. Raises
    `StoreRefused` for a URL or variables that obstore cannot use.
    """
    if url.startswith("memory://"):
        return ObjectBucket(MemoryStore(), url)
    options: Any = {
        "timeout": _REQUEST_TIMEOUT,
        "connect_timeout": _CONNECT_TIMEOUT,
        "allow_http": _has_plain_endpoint(),
    }
    _refuse_parts_that_name_nothing(url)
    try:
        store: Any = from_url(url, client_options=options, retry_config=_RETRIES)
    except (BaseError, ValueError) as error:
        raise StoreRefused(errno.EINVAL, f"{url}: {_detail(error)}") from error
    return ObjectBucket(store, url)


def _refuse_parts_that_name_nothing(url: str) -> None:
    """obstore ignores these parts of a URL, so the root would be another one. A password is not repeated."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        place = f"{parts.scheme}://…@{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise StoreRefused(
            errno.EINVAL, f"{place}: credentials are read from variables, such as AWS_ACCESS_KEY_ID"
        )
    if parts.query or parts.fragment:
        raise StoreRefused(
            errno.EINVAL, f"{url}: write ? as %3F and # as %23, because what follows them would be ignored"
        )


def _has_plain_endpoint() -> bool:
    """Whether the operator has named an endpoint without TLS, in one of the variables that obstore reads."""
    return any(
        value.lower().startswith("http://")
        for name, value in os.environ.items()
        if _ENDPOINT_VARIABLE.fullmatch(name.upper())
    )


def _code_of(text: str) -> str | None:
    """Return the code that a store gives its error, if it gives one."""
    found = _CODE.search(text)
    return found[1] if found else None


def _facts(meta: Any) -> ObjectFacts:
    return ObjectFacts(meta["size"], meta["last_modified"].timestamp())


def _detail(error: Exception) -> str:
    """Return obstore's first line, which says what happened. The rest is its own types, printed.

    The text of one failure is the same each time, because logs say it once as long as it stays.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    told = _CHANGES_EACH_TIME.sub("", lines[0].partition("<?xml")[0]).rstrip(": ")[:_MAX_DETAIL]
    code = _code_of(str(error))
    return f"{told} ({code})" if code else told
