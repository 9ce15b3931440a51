"""Gives a request the pair that it is answered with."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from query_api.contract.route import ENDLESS
from query_api.swap.index_swap import INDEX_SWAP
from query_api.swap.served_pair import SERVED


async def hold_pair(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Hold the pair while the request is answered. A stream holds none: it would keep a former one for hours.

    The request forgets the pair at its end, because a kept connection keeps its last request.
    """
    if _is_endless(request):
        return await handler(request)
    with request.app[INDEX_SWAP].held() as pair:
        request[SERVED] = pair
        try:
            return await handler(request)
        finally:
            del request[SERVED]


def _is_endless(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in request.app[ENDLESS]
