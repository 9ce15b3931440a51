"""`/metrics`. It has its own listener, because only the operator should see it."""

from __future__ import annotations

import asyncio

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def build_metrics_app(registry: CollectorRegistry) -> web.Application:
    """Build the application of the second listener.

    A scrape runs in a thread, because it may read the files of several processes.
    """

    async def get_metrics(_: web.Request) -> web.Response:
        body = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/metrics", get_metrics)])
    return app
