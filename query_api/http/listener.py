"""Sockets: where the service listens, and what one connection may take of it."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from query_api.contract.models import ErrorAnswer, ErrorBody
from query_api.errors import STATUSES
from query_api.http.json_answer import json_answer
from query_api.http.open_connections import OpenConnections
from query_api.telemetry.metrics import METRICS

log = structlog.get_logger()

_HOST_ERRORS = (UnicodeError, IndexError)  # of a host in the request line, which aiohttp reads unguarded


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may take, and how many there may be.

    `idle_seconds` bounds the wait for a request, from connecting or from the last answer to the
    end of the next headers. `send_seconds` bounds how long an answer may stand unread.
    `lingering_seconds` is how long the rest of a refused body is thrown away, so that the
    client can read the refusal. Callers on this machine may hold `num_reserved` connections beyond
    `max_connections`.
    """

    idle_seconds: float = 15.0
    send_seconds: float = 30.0
    lingering_seconds: float = 1.0
    max_line_bytes: int = 8190
    max_header_bytes: int = 8190
    max_headers: int = 64
    max_connections: int = 1000
    num_reserved: int = 16


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 takes a free one, `is_shared` lets other processes listen there too."""

    host: str
    port: int
    is_shared: bool = False


class AddressRefused(Exception):
    """The system lets nobody listen there, or knows no such host."""

    def __init__(self, address: Address, error: OSError) -> None:
        self.address = address
        self.is_unknown_host = isinstance(error, socket.gaierror)
        # asyncio puts the address, and more, into what the system says of it
        reason = error.strerror if self.is_unknown_host else os.strerror(error.errno or 0)
        super().__init__(f"nothing can listen on {address.host}:{address.port}: {reason}")


@asynccontextmanager
async def listening(
    app: web.Application, address: Address, limits: ConnectionLimits, shutdown_seconds: float = 30.0
) -> AsyncIterator[str]:
    """Start the application and listen; yields `host:port`. The end finishes what is in flight.

    Raises `AddressRefused`.
    """
    runner = web.AppRunner(app, shutdown_timeout=shutdown_seconds)
    places = OpenConnections(limits.max_connections, limits.num_reserved, app.get(METRICS))
    await runner.setup()
    try:
        server = await _open_server(address, lambda: Connection(runner, limits, places), limits)
        try:
            host, port, *_ = server.sockets[0].getsockname()
            yield f"{host}:{port}"
        finally:
            server.close()
    finally:
        await runner.cleanup()


async def _open_server(
    address: Address, connect: Callable[[], Connection], limits: ConnectionLimits
) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            connect,
            address.host,
            address.port,
            backlog=min(1024, limits.max_connections),  # asyncio accepts as many at once
            reuse_port=address.is_shared or None,
        )
    except OSError as error:
        raise AddressRefused(address, error) from error


class Connection(web.RequestHandler):
    """aiohttp's connection: one of a bounded number, with errors in our shape.

    An answer that nobody reads has an end, also when only its last part, or the closing, waits.
    """

    __slots__ = ("_limits", "_places", "_socket", "_stalled")

    def __init__(self, runner: web.AppRunner, limits: ConnectionLimits, places: OpenConnections) -> None:
        assert runner.server is not None
        super().__init__(
            runner.server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type] # aiohttp's word for none
            keepalive_timeout=limits.idle_seconds,
            lingering_time=limits.lingering_seconds,
            max_line_size=limits.max_line_bytes,
            max_field_size=limits.max_header_bytes,
            max_headers=limits.max_headers,
        )
        self._limits = limits
        self._places = places
        self._socket: asyncio.Transport | None = None  # aiohttp forgets its own when it begins to close
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def waits_since(self) -> float | None:
        """Since when it waits for a request, by the loop's clock; None while it answers one."""
        if self._waiter is None or self._waiter.done():
            return None
        return self._next_keepalive_close_time - self._limits.idle_seconds

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        host, *_ = transport.get_extra_info("peername") or ("",)
        if not self._places.admit(self, host):
            _refuse(transport)
            return
        self._socket = transport
        super().connection_made(transport)

    async def start(self) -> None:
        """Answer requests; behind the last one the transport is closing."""
        try:
            await super().start()
        except _HOST_ERRORS as error:
            self._give_up(error)
        finally:
            self._begin_counting()

    def data_received(self, data: bytes) -> None:
        try:
            super().data_received(data)
        except _HOST_ERRORS as error:
            self._give_up(error)

    def force_close(self) -> None:
        super().force_close()
        self._begin_counting()

    def pause_writing(self) -> None:
        """The peer's and our own buffers are full."""
        super().pause_writing()
        self._begin_counting()

    def resume_writing(self) -> None:
        self._stop_counting()
        super().resume_writing()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._stop_counting()
        self._socket = None
        self._places.release(self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what could not be read as a request; what it was is not repeated."""
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        code = _code_of(status, exc)
        log.info("unreadable request", code=code, error=type(exc).__name__)
        response = json_answer(_error_text(code), status=STATUSES[code])
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """What is left of a body that was refused may be no better: that is no fault of ours."""
        if isinstance(kw.get("exc_info"), web.RequestPayloadError):
            log.info("unreadable rest of a body")
        else:
            super().log_exception(*args, **kw)

    def _give_up(self, error: Exception) -> None:
        log.info("unreadable request", code="bad_request", error=type(error).__name__)
        if self._socket is not None:
            _answer_and_close(self._socket, "bad_request")

    def _begin_counting(self) -> None:
        if self._socket is not None and self._stalled is None:
            self._stalled = asyncio.get_running_loop().call_later(self._limits.send_seconds, self._abort)

    def _abort(self) -> None:
        if self._socket is not None:
            log.info("answer not read in time")
            self._socket.abort()

    def _stop_counting(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


_MESSAGES = {
    "bad_request": "this is no HTTP request that can be read",
    "headers_too_large": "the request line or a header is too long",
    "internal": "internal error",
    "overloaded": "too many connections are open",
}


def _refuse(transport: asyncio.Transport) -> None:
    """Say why and close, before a request is read."""
    transport.set_protocol(asyncio.Protocol())
    _answer_and_close(transport, "overloaded", "Retry-After: 1\r\n")


def _answer_and_close(transport: asyncio.Transport, code: str, headers: str = "") -> None:
    status, text = HTTPStatus(STATUSES[code]), _error_text(code).encode()
    head = (
        f"HTTP/1.1 {status:d} {status.phrase}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"{headers}Connection: close\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    transport.write(head.encode() + text)
    transport.close()


def _error_text(code: str) -> str:
    body = ErrorBody(code=code, message=_MESSAGES[code], request_id=uuid.uuid4().hex)
    return ErrorAnswer(error=body).model_dump_json(exclude_none=True)


def _code_of(status: int, exc: BaseException | None) -> str:
    if isinstance(exc, LineTooLong):
        return "headers_too_large"
    return "internal" if status >= 500 else "bad_request"
