"""`s3://` through signed addresses: obstore signs, aiohttp fetches, and no redirect is followed.

obstore itself follows redirects, which no option of it prevents. So whoever runs an endpoint could make the
consumer ask another host, inside the network for example. A signed address carries its credentials in
itself and is good for one object, and a redirect of it ends the attempt.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from http import HTTPStatus
from typing import TypeAlias
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

import aiohttp
import obstore
from obstore.exceptions import BaseError
from yarl import URL

from consumer.references.answers import CHUNK_BYTES, check_etag, explained
from consumer.references.policy import ReferenceAbsent, ReferenceRefused, ReferenceWithheld
from service.buckets import Bucket

_SIGNED_FOR = timedelta(minutes=15)
_YES = frozenset({"1", "true", "on", "yes", "y"})

OpenBucket: TypeAlias = Callable[[str], Bucket]


class SignedObjects:
    """Implements `ReferenceStore` for `s3://`."""

    def __init__(self, session: aiohttp.ClientSession, open_bucket: OpenBucket) -> None:
        self._session = session
        self._open_bucket = open_bucket

    async def stream(self, uri: str, etag: str | None) -> AsyncGenerator[bytes, None]:
        address = await self._sign(uri)
        is_answered = False
        try:
            asked = self._session.get(address, allow_redirects=False, proxy=_proxy_of(address))
            async with asked as response:
                is_answered = True
                _check_status(response.status)
                check_etag(response.headers.get("ETag"), etag)
                yield b""
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    yield chunk
        except (aiohttp.ClientError, ConnectionError) as error:
            raise explained(error, is_answered=is_answered) from error

    async def _sign(self, uri: str) -> URL:
        """Return the address to fetch, without a signature where the operator wants none."""
        parts = urlsplit(uri)
        key = unquote(parts.path).lstrip("/")
        if not key:  # its address would be that of the bucket, which answers a list of its objects
            raise ReferenceRefused("names a bucket and no object")
        try:
            bucket = self._open_bucket(f"{parts.scheme}://{parts.netloc}")
            text = await asyncio.to_thread(obstore.sign, bucket, "GET", key, _SIGNED_FOR)
            signed = URL(text, encoded=True)
        except (TypeError, ValueError) as error:  # obstore raises TypeError for a key that is no path to it
            reason = "not a key that can be read: an empty, '.' or '..' part, or a control character"
            raise ReferenceRefused(reason) from error
        except (BaseError, OSError) as error:
            raise explained(error, is_answered=False) from error
        return signed.with_query(None) if skips_signature() else signed


def skips_signature() -> bool:
    """Whether the buckets are public, and no credentials are to be looked for."""
    given = {name.upper(): value for name, value in os.environ.items()}
    return given.get("AWS_SKIP_SIGNATURE", "").lower() in _YES


def _check_status(status: int) -> None:
    if status == HTTPStatus.OK:
        return
    if status == HTTPStatus.NOT_FOUND:
        raise ReferenceAbsent("reference_absent", "no such object")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise ReferenceWithheld(f"not permitted: answered {status}")
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise ReferenceWithheld(f"answered {status}: redirects are not followed; set the bucket's region")
    raise ReferenceWithheld(f"answered {status}")


def _proxy_of(address: URL) -> str | None:
    """Return the proxy that the environment names for this host, as obstore's own requests use it."""
    proxies = getproxies_environment()
    if proxy_bypass_environment(address.host or "", proxies):
        return None
    return proxies.get(address.scheme)


@asynccontextmanager
async def open_bucket_session(timeout_seconds: float) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that hands over the bytes as they are stored, also those that are stored compressed."""
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_seconds),
        trust_env=False,
        auto_decompress=False,
        headers={"Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        yield session
