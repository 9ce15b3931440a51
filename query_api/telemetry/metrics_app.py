"""`/metrics`. It has its own listener, because only the operator should see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from service.host_names import are_own_hosts


def build_metrics_app(
    registry: CollectorRegistry, host_names: Collection[str] = (), refresh: Callable[[], None] | None = None
) -> web.Application:
    """Build the application of the second listener.

    It has no keys, so it answers only to its own names. A scrape runs in a thread, because it may
    read the files of several processes. `refresh` sets this process's gauges that grow with time.
    """

    async def get_metrics(request: web.Request) -> web.Response:
        if not are_own_hosts(request.headers.getall("Host", []), host_names):
            raise web.HTTPForbidden(text="unknown Host; add it to CLIPTIDE_QUERY_API__HOST_NAMES")
        if refresh is not None:
            refresh()
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/metrics", get_metrics)])
    return app
