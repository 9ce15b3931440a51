"""The limit on requests that are worked on at once."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from query_api.contract.route import ENDLESS
from query_api.http.access import NEEDED_ACCESS
from query_api.serving.request_slots import REQUEST_SLOTS


@web.middleware
async def limit_concurrency(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 503 while too many requests are being worked on.

    This middleware runs after the one that receives bodies, so that a client that sends its
    body slowly does not hold a slot meanwhile.
    """
    if request[NEEDED_ACCESS] == "open" or _is_endless(request):
        return await handler(request)
    with request.app[REQUEST_SLOTS].working():
        return await handler(request)


def _is_endless(request: web.Request) -> bool:
    """Whether the answer is a stream. Streams have their own limit: they would hold slots for hours."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in request.app[ENDLESS]
