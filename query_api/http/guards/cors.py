"""CORS: only web pages of the origins that the settings name may read answers."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

_ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Content-Type, Authorization, api-key, X-Request-Id",
    "Access-Control-Max-Age": "600",
}
_EXPOSED = "X-Request-Id, Server-Timing, Retry-After"


def build_cors(origins: frozenset[str]) -> Middleware:
    """Build the middleware that answers preflights of these origins and lets their pages read answers."""

    @web.middleware
    async def allow_origins(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin", "")
        if origin not in origins:
            return await handler(request)
        is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        response = web.Response(status=204, headers=_ALLOWED) if is_preflight else await handler(request)
        if not response.prepared:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
            response.headers.add("Vary", "Origin")
        return response

    return allow_origins
