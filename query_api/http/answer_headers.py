"""Headers that every answer carries, so that browsers and proxies keep it from those it is not for."""

from __future__ import annotations

from types import MappingProxyType

from aiohttp import web

HEADERS = MappingProxyType(
    {
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)
_KEY_HEADERS = ("Authorization", "api-key")


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Add the headers that a handler has not set itself. aiohttp calls this before an answer begins.

    An answer depends on the caller's key, and `Vary` says so to caches that may keep some answers.
    """
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    for name in _KEY_HEADERS:
        response.headers.add("Vary", name)
