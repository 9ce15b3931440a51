"""`/v1/live`: server-sent events that say what is searchable now."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager

from aiohttp import web
from pydantic import Field

from clip_index.content import MODALITIES, Modality
from query_api.answers.snapshot import SnapshotAnswer, build_snapshot
from query_api.contract.models import Answer
from query_api.contract.route import Route
from query_api.errors import ApiError
from query_api.http.guards.access import CALLER
from query_api.serving.engine import Snapshot
from query_api.serving.shares import SharedSlots
from query_api.swap.index_swap import INDEX_SWAP, IndexSwap
from query_api.telemetry.stages import REQUEST_ID

MAX_STREAMS = 32  # of each caller
EVENT_STREAM = "text/event-stream"
SILENCE_SECONDS = 1.0  # an event at least this often, so that both sides notice a dead connection
MIN_INTERVAL_SECONDS = 0.2  # a busy index has tens of generations a second


class LiveState(Answer):
    """The data of each event."""

    num_contents: dict[Modality, int] = Field(description="How many live contents the index has.")
    seconds_behind: float | None = Field(
        description="Every record older than this is covered. Null until each shard has a watermark."
    )
    snapshot: SnapshotAnswer


class LiveStreams:
    """The streams that are open, at most `max_streams` of each caller. All end when the service stops."""

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        self._slots = SharedSlots(max_streams)
        self.stopping = asyncio.Event()

    @property
    def num_open(self) -> int:
        return self._slots.num_held

    def slot(self, caller: str = "") -> AbstractContextManager[None]:
        """Hold a slot for as long as the block runs; `ApiError` (overloaded) if none is free."""
        if not self._slots.has_slot_for(caller):
            raise ApiError("overloaded", "too many live streams are open", headers={"Retry-After": "5"})
        return self._slots.held_by(caller)

    async def stop(self, _: web.Application) -> None:
        """End every stream, because a service that stops waits for its requests."""
        self.stopping.set()


LIVE_STREAMS = web.AppKey("live_streams", LiveStreams)


async def get_live(request: web.Request) -> web.StreamResponse:
    """Send an event now, on every change, and at least each second, until the client leaves."""
    streams, swap = request.app[LIVE_STREAMS], request.app[INDEX_SWAP]
    with streams.slot(request[CALLER]):
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = EVENT_STREAM
        response.headers["X-Request-Id"] = request[REQUEST_ID]
        first = swap.pair.index.searcher
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        await _send_events(response, first, swap, streams.stopping)
    return response


async def _send_events(
    response: web.StreamResponse, searcher: Snapshot, swap: IndexSwap, stopping: asyncio.Event
) -> None:
    """Send events of whatever index serves. A stream outlives a swap, and holds no index."""
    while not stopping.is_set():
        try:
            await response.write(event_of(searcher).encode())
        except ConnectionError:  # the client left
            return
        await _pause(stopping, MIN_INTERVAL_SECONDS)
        served = swap.pair.index
        searcher = await served.newer_searcher(searcher, SILENCE_SECONDS - MIN_INTERVAL_SECONDS)


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except asyncio.TimeoutError:
        return


def event_of(searcher: Snapshot) -> str:
    """Return a searcher's state as one server-sent event."""
    return f"event: index\ndata: {describe(searcher, time.time()).model_dump_json()}\n\n"


def describe(searcher: Snapshot, now_seconds: float) -> LiveState:
    """Say what a searcher holds, and how far behind `now` its slowest shard is."""
    shards = searcher.shards.values()
    watermarks = [shard.watermark_ms for shard in shards if shard.watermark_ms is not None]
    behind = max(0.0, now_seconds - min(watermarks) / 1000) if watermarks else None
    return LiveState(
        num_contents={m: sum(shard.num_contents.get(m, 0) for shard in shards) for m in MODALITIES},
        seconds_behind=None if behind is None or len(watermarks) < len(shards) else round(behind, 2),
        snapshot=build_snapshot(searcher),
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/live",
        handler=get_live,
        access="read",
        summary="What is searchable now, as server-sent events without an end.",
        answers={200: {"type": "string"}},
        answer_type=EVENT_STREAM,
        codes=frozenset({"no_index"}),
        is_endless=True,
    ),
)
