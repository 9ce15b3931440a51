"""Objects of buckets through signed addresses: obstore signs, aiohttp fetches, and no redirect is followed.

obstore itself follows redirects, which no option of it prevents. So whoever runs an endpoint could make the
consumer ask another host, inside the network for example. A signed address carries its credentials in
itself and is good for one object, and a redirect of it ends the attempt.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
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
from service.buckets import Bucket, public_google_address, skips_signature

_NO_PART = frozenset({"", ".", ".."})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SIGNED_FOR = timedelta(minutes=15)
_TRIAL_SECONDS = 5.0  # where no metadata server answers, obstore would wait for it much longer

OpenBucket: TypeAlias = Callable[[str], Bucket]


class CannotSign(Exception):
    """No address can be signed: the bucket's credentials may only read, or obstore signs this key wrongly."""


class SignedObjects:
    """Reads `s3:// gs:// az://` as a `ReferenceStore` does; its streams also raise `CannotSign`."""

    def __init__(self, session: aiohttp.ClientSession, open_bucket: OpenBucket) -> None:
        self._session = session
        self._open_bucket = open_bucket
        self._can_sign: dict[str, bool] = {}

    async def stream(self, uri: str, etag: str | None) -> AsyncGenerator[bytes, None]:
        address = await self._address(uri)
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

    async def _address(self, uri: str) -> URL:
        """Return the address to fetch, without a signature where the operator wants none."""
        parts = urlsplit(uri)
        key = unquote(parts.path).lstrip("/")
        if not key:  # its address would be that of the bucket, which answers a list of its objects
            raise ReferenceRefused("names a bucket and no object")
        try:
            return await self._sign(parts.scheme, f"{parts.scheme}://{parts.netloc}", key)
        except (TypeError, ValueError) as error:  # obstore raises TypeError for a key that is no path to it
            reason = "not a key that can be read: an empty, '.' or '..' part, or a control character"
            raise ReferenceRefused(reason) from error

    async def _sign(self, scheme: str, bucket: str, key: str) -> URL:
        if scheme == "gs" and skips_signature(scheme):
            _check_key(key)
            return URL(public_google_address(bucket.removeprefix("gs://"), key), encoded=True)
        if scheme != "s3" and not await self._may_sign(bucket):
            raise CannotSign
        try:
            signed = await self._signed(bucket, key)
        except (BaseError, OSError) as error:
            raise explained(error, is_answered=False) from error
        if not _is_signed_well(signed, scheme, key):
            raise CannotSign
        return signed.with_query(None) if skips_signature(scheme) else signed

    async def _may_sign(self, bucket: str) -> bool:
        """Whether the bucket's credentials can sign addresses, which is tried once."""
        if bucket not in self._can_sign:
            self._can_sign[bucket] = False  # meanwhile, and for good if the trial takes too long
            with suppress(BaseError, OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._signed(bucket, "any"), _TRIAL_SECONDS)
                self._can_sign[bucket] = True
        return self._can_sign[bucket]

    async def _signed(self, bucket: str, key: str) -> URL:
        opened = self._open_bucket(bucket)
        return URL(await asyncio.to_thread(obstore.sign, opened, "GET", key, _SIGNED_FOR), encoded=True)


def _is_signed_well(signed: URL, scheme: str, key: str) -> bool:
    """Whether the address is the object's own. That of some keys is not, as obstore 0.12 makes it.

    In `gs://` it leaves # and ? of a key as they are, and the address ends there. In `az://` it signs the
    encoded path of a key, where Azure asks for the key itself.
    """
    is_whole = signed.path.endswith(f"/{key}")
    return is_whole and (scheme != "az" or signed.raw_path == signed.path)


def _check_key(key: str) -> None:
    """Refuse by `ValueError` what obstore refuses, where obstore makes no address."""
    if _NO_PART & set(key.split("/")) or _CONTROL.search(key):
        raise ValueError(key)


def _check_status(status: int) -> None:
    if status == HTTPStatus.OK:
        return
    if status == HTTPStatus.NOT_FOUND:
        raise ReferenceAbsent("reference_absent", "no such object")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        raise ReferenceWithheld(f"not permitted: answered {status}")
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        hint = "set the region of an s3 bucket"
        raise ReferenceWithheld(f"answered {status}: redirects are not followed; {hint}")
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
