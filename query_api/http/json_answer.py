"""The one way in which the query service answers JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

_CONTENT_TYPE = "application/json; charset=utf-8"
_SENT_WHOLE_BYTES = 2**20
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def json_answer(
    text: str | bytes, *, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS
) -> web.Response:
    """Answer a JSON text. Large texts are made in a worker and sent in pieces: the event loop stays free."""
    body = text.encode() if isinstance(text, str) else text
    sent = io.BytesIO(body) if len(body) > _SENT_WHOLE_BYTES else body
    return web.Response(body=sent, status=status, headers={**headers, "Content-Type": _CONTENT_TYPE})
