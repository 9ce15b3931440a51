"""`/v1/live`: what is searchable now, told again and again as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from pydantic import Field

from clip_index.content import MODALITIES, Modality
from query_api.answers.snapshot import SnapshotAnswer, build_snapshot
from query_api.contract.models import Answer
from query_api.contract.route import Route
from query_api.errors import ApiError
from query_api.serving.engine import Snapshot
from query_api.serving.served_index import SERVED_INDEX
from query_api.telemetry.stages import REQUEST_ID

MAX_LISTENERS = 32


class LiveListeners:
    """Who listens, at most `max_listeners`, until the service stops."""

    def __init__(self, max_listeners: int = MAX_LISTENERS) -> None:
        self._max_listeners = max_listeners
        self._num_listeners = 0
        self.stopping = asyncio.Event()

    @property
    def num_listeners(self) -> int:
        return self._num_listeners

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for as long as the block runs; `ApiError` (overloaded) when there is none."""
        if self._num_listeners >= self._max_listeners:
            raise ApiError("overloaded", "too many are listening", headers={"Retry-After": "5"})
        self._num_listeners += 1
        try:
            yield
        finally:
            self._num_listeners -= 1

    async def stop(self, _: web.Application) -> None:
        """End every stream: a stopping service waits for its requests."""
        self.stopping.set()


class LiveState(Answer):
    """The data of each event."""

    num_contents: dict[Modality, int] = Field(description="Live contents.")
    seconds_behind: float | None = Field(
        description="Every record older than this is covered; null until each shard has told once."
    )
    snapshot: SnapshotAnswer


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


async def _tell(request: web.Request, response: web.StreamResponse, searcher: Snapshot) -> None:
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


def event_of(searcher: Snapshot) -> str:
    """Return a searcher's state as one server-sent event."""
    return f"event: index\ndata: {describe(searcher, time.time()).model_dump_json()}\n\n"


def describe(searcher: Snapshot, now_seconds: float) -> LiveState:
    """Say what a searcher holds, and how far behind `now` the shard is that is most behind."""
    shards = searcher.shards.values()
    watermarks = [shard.watermark_ms for shard in shards if shard.watermark_ms is not None]
    behind = max(0.0, now_seconds - min(watermarks) / 1000) if watermarks else None
    return LiveState(
        num_contents={m: sum(shard.num_contents.get(m, 0) for shard in shards) for m in MODALITIES},
        seconds_behind=None if behind is None or len(watermarks) < len(shards) else round(behind, 2),
        snapshot=build_snapshot(searcher),
    )


LIVE_LISTENERS = web.AppKey("live_listeners", LiveListeners)


ROUTES = (
    Route(
        method="GET",
        path="/v1/live",
        handler=get_live,
        access="read",
        summary="What is searchable now, as server-sent events that do not end.",
        answers={200: {"type": "string"}},
        answer_type=EVENT_STREAM,
        codes=frozenset({"no_index"}),
        is_endless=True,
    ),
)
