"""`/v1/live`: what is searchable now, told again and again as server-sent events."""

from __future__ import annotations

import asyncio
import time

from aiohttp import web

from clip_index.content import MODALITIES
from clip_index.reading.searcher import Searcher
from query_api.app_keys import LIVE_LISTENERS, REQUEST_ID, SERVED_INDEX
from query_api.live_models import LiveState
from query_api.search import retrieval

EVENT_STREAM = "text/event-stream"
SILENCE_SECONDS = 1.0  # an event at least this often, so that both sides notice a dead connection
MIN_INTERVAL_SECONDS = 0.2  # a busy index has tens of generations a second


async def get_live(request: web.Request) -> web.StreamResponse:
    """Send an event now, on every change, and at least each second, until the client leaves."""
    listeners = request.app[LIVE_LISTENERS]
    with listeners.place():
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = EVENT_STREAM
        response.headers["X-Request-Id"] = request[REQUEST_ID]
        first = request.app[SERVED_INDEX].searcher
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        await _tell(request, response, first)
    return response


async def _tell(request: web.Request, response: web.StreamResponse, searcher: Searcher) -> None:
    served, stopping = request.app[SERVED_INDEX], request.app[LIVE_LISTENERS].stopping
    while not stopping.is_set():
        try:
            await response.write(event_of(searcher).encode())
        except ConnectionError:  # the client left; nobody is there to answer
            return
        await _pause(stopping, MIN_INTERVAL_SECONDS)
        searcher = await served.newer_searcher(searcher, SILENCE_SECONDS - MIN_INTERVAL_SECONDS)


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except asyncio.TimeoutError:
        return


def event_of(searcher: Searcher) -> str:
    """Return a searcher's state as one server-sent event."""
    return f"event: index\ndata: {describe(searcher, time.time()).model_dump_json()}\n\n"


def describe(searcher: Searcher, now_seconds: float) -> LiveState:
    """Say what a searcher holds, and how far behind `now` the shard is that is most behind."""
    shards = searcher.shards.values()
    watermarks = [shard.watermark_ms for shard in shards if shard.watermark_ms is not None]
    behind = max(0.0, now_seconds - min(watermarks) / 1000) if watermarks else None
    return LiveState(
        num_contents={m: sum(shard.num_contents.get(m, 0) for shard in shards) for m in MODALITIES},
        seconds_behind=None if behind is None or len(watermarks) < len(shards) else round(behind, 2),
        snapshot=retrieval.build_snapshot(searcher),
    )
