"""Where referenced bytes come from: each kind of store gives a stream of chunks."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiohttp
import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore

from consumer.references.policy import (
    ReferenceAbsent,
    ReferencePolicy,
    ReferenceRefused,
    ReferenceUnreachable,
    ReferenceWithheld,
)
from service.buckets import open_bucket

_CHUNK_BYTES = 256 * 1024
_NO_NAME = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_RESERVED_BY_OBSTORE = re.compile(r".*#\d+", re.DOTALL)
_ANSWERED_BY_BUCKET = re.compile(r"Server returned non-2xx status code: (\d+)|Received redirect without")
"""How obstore tells an answer of the store from a store that does not answer: in its message alone."""
_BUSY = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class ReferenceStore(Protocol):
    """Reads the bytes that a reference names, if they have the `etag` that it names, or it names none.

    The stream raises `ReferenceRefused`, `ReferenceAbsent`, `ReferenceUnreachable` or
    `ReferenceWithheld`, at its beginning or later. It yields no bytes, once, when the store has answered.
    """

    def stream(self, uri: str, etag: str | None) -> AsyncGenerator[bytes, None]: ...


class HttpStore:
    """`https://` through aiohttp, without redirects, and without the environment's proxies or credentials."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def stream(self, uri: str, etag: str | None) -> AsyncGenerator[bytes, None]:
        is_answered = False
        try:
            async with self._session.get(uri, allow_redirects=False) as response:
                is_answered = True
                _check_status(response.status)
                _check_etag(response.headers.get("ETag"), etag)
                yield b""
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    yield chunk
        except aiohttp.InvalidURL as error:
            raise ReferenceRefused("not a URL") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            is_answered = is_answered or isinstance(error, aiohttp.ClientResponseError)
            failure = ReferenceWithheld if is_answered else ReferenceUnreachable
            raise failure(f"{type(error).__name__}: {error}") from error


def _check_status(status: int) -> None:
    if status == HTTPStatus.OK:
        return
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise ReferenceRefused(f"answered {status}: redirects are not followed")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _BUSY:
        raise ReferenceWithheld(f"answered {status}")
    raise ReferenceAbsent("reference_absent", f"answered {status}")


def _check_etag(found: str | None, wanted: str | None) -> None:
    """Compare two entity tags as RFC 9110, 8.8.3.2, compares them weakly; quotation marks do not count."""
    if wanted is not None and (found is None or _opaque_tag(found) != _opaque_tag(wanted)):
        raise ReferenceAbsent("etag_mismatch", "the store has another version than the etag names")


def _opaque_tag(etag: str) -> str:
    return etag.strip().removeprefix("W/").strip('"')


@asynccontextmanager
async def open_http_store(timeout_seconds: float) -> AsyncIterator[HttpStore]:
    """An HTTP store for the life of the context. `timeout_seconds` bounds a whole request."""
    timeout = aiohttp.ClientTimeout(total=timeout_seconds)
    headers = {"Accept-Encoding": "identity"}
    no_cookies = aiohttp.DummyCookieJar()  # because a jar would grow with each path that is fetched
    async with aiohttp.ClientSession(
        timeout=timeout, trust_env=False, headers=headers, cookie_jar=no_cookies
    ) as session:
        yield HttpStore(session)


class BucketStore:
    """`s3:// gs:// az://` through obstore, which finds credentials where the clouds' own tools keep them.

    A reference names a bucket, never an endpoint. Plain HTTP is used only when an endpoint of the
    operator (`AWS_ENDPOINT_URL`) has that scheme, as for a store in a private network.

    obstore follows redirects, which no option of it prevents. It passes no credentials to another
    host, an https endpoint can only redirect to https, and a digest in the event is checked anyway.
    So whoever runs the endpoint can make the consumer ask another host without credentials.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._store = lru_cache(maxsize=64)(self._build)

    def _build(self, bucket: str) -> obstore.store.ObjectStore:
        return open_bucket(bucket, self._timeout_seconds)

    async def stream(self, uri: str, etag: str | None) -> AsyncGenerator[bytes, None]:
        parts = urlsplit(uri)
        key = unquote(parts.path).lstrip("/")
        async for chunk in _stream_object(lambda: self._store(f"{parts.scheme}://{parts.netloc}"), key, etag):
            yield chunk


class FileStore:
    """`file://` through obstore. The path is resolved first, so that no symbolic link leads out of a root.

    A process that can write inside a root while its files are fetched could still change a link;
    it is trusted.
    """

    def __init__(self, policy: ReferencePolicy) -> None:
        self._policy = policy

    async def stream(self, uri: str, etag: str | None) -> AsyncGenerator[bytes, None]:
        root, path = self._policy.file_path(uri)
        _check_file(path)
        async for chunk in _stream_object(lambda: LocalStore(root), path.relative_to(root).as_posix(), etag):
            yield chunk


def _check_file(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ReferenceAbsent("reference_absent", "no such file") from error
    except PermissionError as error:
        raise ReferenceWithheld("not permitted") from error
    except OSError as error:
        if error.errno in _NO_NAME:
            raise ReferenceRefused(f"not a path: {error.strerror}") from error
        raise ReferenceUnreachable(f"{error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise ReferenceRefused("not a regular file")
    if _RESERVED_BY_OBSTORE.fullmatch(path.name):
        raise ReferenceRefused("a file name that ends in # and digits cannot be read")


class _OpensStore(Protocol):
    def __call__(self) -> obstore.store.ObjectStore: ...


async def _stream_object(open_store: _OpensStore, key: str, etag: str | None) -> AsyncGenerator[bytes, None]:
    is_answered = False
    try:
        store = open_store()
        try:
            found = await obstore.get_async(store, key)
        except ValueError as error:
            reason = "not a key that can be read: an empty, '.' or '..' part, or a control character"
            raise ReferenceRefused(reason) from error
        is_answered = True
        _check_etag(found.meta.get("e_tag"), etag)
        yield b""
        async for chunk in found.stream(min_chunk_size=_CHUNK_BYTES):
            yield bytes(chunk)
    except FileNotFoundError as error:
        raise ReferenceAbsent("reference_absent", "no such object") from error
    except (PermissionDeniedError, UnauthenticatedError, PermissionError) as error:
        raise ReferenceWithheld(f"not permitted: {type(error).__name__}") from error
    except (BaseError, OSError) as error:
        answer = _ANSWERED_BY_BUCKET.search(str(error))
        detail = f"{type(error).__name__}{f': answered {answer[1]}' if answer and answer[1] else ''}"
        failure = ReferenceWithheld if is_answered or answer else ReferenceUnreachable
        raise failure(detail) from error
