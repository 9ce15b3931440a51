"""Where referenced bytes come from: each kind of store gives a stream of chunks."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import aiohttp
import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore

from consumer.references.answers import CHUNK_BYTES, check_etag, explained
from consumer.references.policy import (
    ReferenceAbsent,
    ReferencePolicy,
    ReferenceRefused,
    ReferenceUnreachable,
    ReferenceWithheld,
)
from consumer.references.signed_objects import CannotSign, SignedObjects
from service.buckets import Bucket, open_bucket, open_public_bucket, skips_signature

_NO_NAME = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_RESERVED_BY_OBSTORE = re.compile(r".*#\d+", re.DOTALL)
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
                check_etag(response.headers.get("ETag"), etag)
                yield b""
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
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

    Objects are fetched through signed addresses without redirects. To sign an address in `gs://` or `az://`
    takes a key of a service account, an account key, or a permission that reading does not need. Whether
    the credentials can sign is found at a bucket's first reference. Where they cannot, and for the few keys
    whose address obstore signs wrongly, obstore fetches. It follows redirects and passes no credentials to
    another host. The hosts are Google's and Microsoft's own, unless the operator names others.
    """

    def __init__(self, session: aiohttp.ClientSession, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._store = lru_cache(maxsize=64)(self._build)
        self._signed = SignedObjects(session, self._store)

    def _build(self, bucket: str) -> Bucket:
        scheme = urlsplit(bucket).scheme
        if scheme != "gs" and skips_signature(scheme):
            return open_public_bucket(bucket)
        return open_bucket(bucket, self._timeout_seconds)

    async def stream(self, uri: str, etag: str | None) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(self._signed.stream(uri, etag)) as stream:
                async for chunk in stream:
                    yield chunk
            return
        except CannotSign:
            parts = urlsplit(uri)
        opened = partial(self._store, f"{parts.scheme}://{parts.netloc}")
        async with aclosing(_stream_object(opened, unquote(parts.path).lstrip("/"), etag)) as stream:
            async for chunk in stream:
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
        check_etag(found.meta.get("e_tag"), etag)
        yield b""
        async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
            yield bytes(chunk)
    except FileNotFoundError as error:
        raise ReferenceAbsent("reference_absent", "no such object") from error
    except (BaseError, OSError) as error:
        raise explained(error, is_answered=is_answered) from error
