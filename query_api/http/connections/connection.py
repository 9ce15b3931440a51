"""One connection: what it may take of the service, and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import structlog
from aiohttp import web

from query_api.errors import STATUSES
from query_api.http.bodies.inflation import KEEP_COMPRESSED
from query_api.http.connections.aiohttp_parts import has_begun_answer, tells_waiting
from query_api.http.connections.open_connections import OpenConnections
from query_api.http.connections.unreadable import code_of, error_text, refuse_connection, refuse_request
from query_api.http.json_answer import json_answer

log = structlog.get_logger()

_LOOK_SECONDS = 0.02
_HOST_ERRORS = (UnicodeError, IndexError)  # of a malformed host in the request line; aiohttp lets them pass


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may take, and how many connections there may be.

    `idle_seconds` bounds the wait for a request: from the connection's start, or from its last
    answer, to the end of the next headers. `send_seconds` bounds how long an answer may wait
    for the client to read it. After a body was refused, the rest of it is read and thrown away
    for `lingering_seconds`, because otherwise the client could not read the refusal. Clients on
    this machine may hold `num_reserved` connections beyond `max_connections`.
    """

    idle_seconds: float = 75.0
    send_seconds: float = 30.0
    lingering_seconds: float = 1.0
    max_line_bytes: int = 8190
    max_header_bytes: int = 8190
    max_headers: int = 64
    max_connections: int = 1000
    num_reserved: int = 16


class Connection(web.RequestHandler):
    """aiohttp's connection, with four additions.

    Its number is bounded. Errors in a request that cannot be read have the service's JSON shape.
    It is aborted when the client does not read an answer for `send_seconds`, also when only the
    last part of the answer, or the closing itself, is waiting. A request whose bytes are still
    arriving when the service stops is received and answered; aiohttp would drop them.
    """

    __slots__ = (
        "_connections",
        "_has_ended",
        "_has_partial_headers",
        "_limits",
        "_send_timer",
        "_socket",
        "_tells_waiting",
        "_waits_since",
    )

    def __init__(self, runner: web.AppRunner, limits: ConnectionLimits, connections: OpenConnections) -> None:
        assert runner.server is not None
        super().__init__(
            runner.server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp takes None for "no access log"
            keepalive_timeout=limits.idle_seconds,
            lingering_time=limits.lingering_seconds,
            max_line_size=limits.max_line_bytes,
            max_field_size=limits.max_header_bytes,
            max_headers=limits.max_headers,
            **KEEP_COMPRESSED,
        )
        self._limits = limits
        self._connections = connections
        self._socket: asyncio.Transport | None = None  # kept, because aiohttp drops its own at closing
        self._send_timer: asyncio.TimerHandle | None = None
        self._has_partial_headers = False
        self._has_ended = False
        self._tells_waiting = tells_waiting(self)
        self._waits_since: float | None = asyncio.get_running_loop().time()

    @property
    def waits_since(self) -> float | None:
        """Since when (the loop's clock) it waits for a request; None while it answers one."""
        if not self._tells_waiting:
            return self._waits_since
        if self._waiter is None or self._waiter.done():
            return None
        return self._next_keepalive_close_time - self._limits.idle_seconds

    def request_began(self) -> None:
        self._waits_since = None
        self._has_partial_headers = False

    def request_ended(self) -> None:
        self._waits_since = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        socket = cast(asyncio.Transport, transport)  # uvloop's is one without inheriting from it
        host, *_ = transport.get_extra_info("peername") or ("",)
        if not self._connections.admit(self, host):
            refuse_connection(socket)
            return
        self._socket = socket
        super().connection_made(transport)

    async def start(self) -> None:
        """Answer requests until the connection ends, and bound the time that its closing may take."""
        try:
            await super().start()
        except _HOST_ERRORS as error:
            self._give_up(error)
        finally:
            self._has_ended = True
            self._start_send_timer()

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except _HOST_ERRORS as error:
            self._give_up(error)
        self._has_partial_headers = self.waits_since is not None

    @property
    def _is_in_use(self) -> bool:
        """Whether a request is arriving or is being answered."""
        return not self._has_ended and (self.waits_since is None or self._has_partial_headers)

    def close(self) -> None:
        """Close when the answer under way is written. A service that stops lets a request arrive first."""
        if not (self._connections.are_closing and self._is_in_use):
            super().close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Wait until the request under way is answered, for `timeout` at most; then close."""
        loop = asyncio.get_running_loop()
        end = loop.time() + (timeout or 0.0)
        while self._is_in_use and loop.time() < end:  # noqa: ASYNC110 (aiohttp tells nobody of an answer's end)
            await asyncio.sleep(_LOOK_SECONDS)
        super().close()  # what waits for another request ends now
        await super().shutdown(max(_LOOK_SECONDS, end - loop.time()))  # aiohttp takes 0 for "without a limit"

    def force_close(self) -> None:
        super().force_close()
        self._start_send_timer()

    def pause_writing(self) -> None:
        """The client does not read: its buffers and ours are full."""
        super().pause_writing()
        self._start_send_timer()

    def resume_writing(self) -> None:
        self._stop_send_timer()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._stop_send_timer()
        self._has_ended = True
        self._socket = None
        self._connections.release(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that could not be read. The answer does not repeat what the client sent."""
        if has_begun_answer(request, status):
            raise ConnectionError("the answer has already begun")
        code = code_of(status, exc)
        log.info("unreadable request", code=code, error=type(exc).__name__)
        response = json_answer(error_text(code), status=STATUSES[code])
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log aiohttp's errors, but as information where the client alone is at fault.

        The rest of a refused body may be malformed as well.
        """
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            log.info("unreadable rest of a body")
        else:
            super().log_exception(*args, **kw)

    def _give_up(self, error: Exception) -> None:
        log.info("unreadable request", code="bad_request", error=type(error).__name__)
        if self._socket is not None:
            refuse_request(self._socket)

    def _start_send_timer(self) -> None:
        if self._socket is not None and self._send_timer is None:
            self._send_timer = asyncio.get_running_loop().call_later(self._limits.send_seconds, self._abort)

    def _abort(self) -> None:
        if self._socket is not None:
            log.info("answer not read in time")
            self._socket.abort()

    def _stop_send_timer(self) -> None:
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
