"""What this service takes of aiohttp that aiohttp does not promise, in one place, with a way to do without.

- `RequestHandler._waiter` and `._next_keepalive_close_time` tell since when a connection waits for a
  request. Without them a middleware tells each connection when a request begins and ends.
- `request.writer.output_size` tells whether an answer has begun. Without it the kind of error decides.
- `web.RequestHandler` can be subclassed with bounds of its own. If it cannot, aiohttp's own connections
  serve: unbounded in number, but with aiohttp's own limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

log = structlog.get_logger()
WAITING_PARTS = ("_waiter", "_next_keepalive_close_time")


class Tracked(Protocol):
    """A connection that can be told when a request begins and ends."""

    def request_began(self) -> None: ...

    def request_ended(self) -> None: ...


def can_build(build: Callable[[], object]) -> bool:
    """Try once, at the start, whether connections of our own can be built; log it if they cannot."""
    try:
        build()
    except (AttributeError, TypeError) as error:
        log.error("aiohttp is not as expected: connections have no bounds", error=str(error))
        return False
    return True


def tells_waiting(connection: object) -> bool:
    """Whether aiohttp tells since when its connections wait for a request."""
    return all(hasattr(connection, name) for name in WAITING_PARTS)


@web.middleware
async def track_requests(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Tell the connection when a request begins and ends."""
    if not hasattr(request.protocol, "request_began"):
        return await handler(request)
    connection = cast(Tracked, request.protocol)
    connection.request_began()
    try:
        return await handler(request)
    finally:
        connection.request_ended()


def has_begun_answer(request: web.BaseRequest, status: int) -> bool:
    """Whether bytes of the answer have been sent. Errors below 500 are those of unreadable requests."""
    writer = getattr(request, "writer", None)
    return bool(getattr(writer, "output_size", status >= 500))
