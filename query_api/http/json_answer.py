"""The one way in which the query service answers JSON."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

_CONTENT_TYPE = "application/json; charset=utf-8"
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def json_answer(
    text: str | bytes, *, status: int = 200, headers: Mapping[str, str] = _NO_HEADERS
) -> web.Response:
    """Answer a JSON text. Large texts are written in a worker, so that the event loop stays free."""
    body = text.encode() if isinstance(text, str) else text
    return web.Response(body=body, status=status, headers={**headers, "Content-Type": _CONTENT_TYPE})
