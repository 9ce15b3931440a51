"""The limit on requests that are worked on at once."""

from __future__ import annotations

from contextlib import AsyncExitStack, nullcontext

from aiohttp import web
from aiohttp.typedefs import Handler

from query_api.contract.route import ENDLESS
from query_api.http.access import NEEDED_ACCESS
from query_api.serving.request_slots import REQUEST_SLOTS
from query_api.telemetry.stages import STAGES


@web.middleware
async def limit_concurrency(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request queue while too many are being worked on, and answer 503 if that takes too long.

    This middleware runs after the one that receives bodies, so that a client that sends its
    body slowly does not hold a slot meanwhile.
    """
    if request[NEEDED_ACCESS] == "open" or _is_endless(request):
        return await handler(request)
    async with AsyncExitStack() as stack:
        slots = request.app[REQUEST_SLOTS]
        with request[STAGES].measure("queue") if slots.are_taken else nullcontext():
            await stack.enter_async_context(slots.working())
        return await handler(request)


def _is_endless(request: web.Request) -> bool:
    """Whether the answer is a stream. Streams have their own limit: they would hold slots for hours."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in request.app[ENDLESS]
