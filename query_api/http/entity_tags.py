"""Whether a client has the current version of what it asks for (RFC 9110, 13.1.2)."""

from __future__ import annotations

import re
from hashlib import blake2b

from aiohttp import web

_OPAQUE_TAG = re.compile(r'"[^"]*"')


def etag_of(body: bytes) -> str:
    """Return an ETag that follows from the bytes alone, so that all processes give the same one."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def is_known(request: web.Request, etag: str) -> bool:
    """Whether one of the tags in If-None-Match is this one.

    A tag is compared without its `W/`, because a proxy that compresses an answer makes its tag weak.
    """
    told = ",".join(request.headers.getall("If-None-Match", ()))
    return told.strip() == "*" or etag in _OPAQUE_TAG.findall(told)
