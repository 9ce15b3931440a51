"""A small HTTP server for health checks and metrics: one thread, one request a connection, all bounded.

It is for a service that has no event loop of its own. A slow client holds a slot and no thread. When
no slot is free, the connection that has waited longest for its request is closed for the newcomer.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from typing import TypeAlias

import structlog

log = structlog.get_logger()
_END = b"\r\n\r\n"
_STOP_SECONDS = 5.0
_REFUSED = b'{"error": "overloaded"}'


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one connection may take, and how many there may be.

    `receive_seconds` bounds the time from a connection's start to the end of its headers, and
    `send_seconds` the time in which its answer must be read. Clients on this machine have
    `num_reserved` more slots, so that health checks get through.
    """

    max_connections: int = 64
    num_reserved: int = 8
    receive_seconds: float = 5.0
    send_seconds: float = 5.0
    max_header_bytes: int = 8192


@dataclass(frozen=True, slots=True)
class SmallRequest:
    """A request without a body. `hosts` are all hosts that it names."""

    method: str
    path: str
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SmallAnswer:
    status: HTTPStatus
    body: bytes
    content_type: str = "application/json"


Answer: TypeAlias = Callable[[SmallRequest], SmallAnswer]


class SmallServer:
    """Listens from the start on, and answers from `start` to `close`. Port 0 takes a free port.

    Raises `OSError` where nothing can listen. `answer` runs in the server's thread, and must be quick.
    """

    def __init__(self, host: str, port: int, answer: Answer, limits: ServerLimits | None = None) -> None:
        self._socket = _listen(host, port)
        self._answer = answer
        self._limits = limits or ServerLimits()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    def close(self) -> None:
        """Stop; an answer that hangs is not waited for any longer than some seconds."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_STOP_SECONDS)
        self._socket.close()

    def _run(self) -> None:
        assert self._loop is not None
        try:
            self._loop.run_until_complete(self._serve(self._loop))
        finally:
            self._loop.close()

    async def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        slots = _Slots(self._limits)
        server = await loop.create_server(
            lambda: _Connection(self._answer, self._limits, slots),
            sock=self._socket,
            backlog=self._limits.max_connections,
        )
        await self._stop.wait()
        server.close()
        slots.abort_all()
        await asyncio.sleep(0)  # the aborted connections end


class _Slots:
    """The connections that are open, in the order in which they came."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits = limits
        self._held: dict[_Connection, None] = {}

    def admit(self, connection: _Connection, peer_host: str) -> bool:
        reserve = self._limits.num_reserved if _is_loopback(peer_host) else 0
        if len(self._held) >= self._limits.max_connections + reserve and not self._displace_one():
            return False
        self._held[connection] = None
        return True

    def release(self, connection: _Connection) -> None:
        self._held.pop(connection, None)

    def abort_all(self) -> None:
        for connection in list(self._held):
            connection.abort()

    def _displace_one(self) -> bool:
        longest = next((one for one in self._held if one.waits), None)
        if longest is None:
            return False
        self.release(longest)
        longest.abort()
        return True


class _Connection(asyncio.Protocol):
    """One connection: it waits for its headers, is answered, and ends."""

    def __init__(self, answer: Answer, limits: ServerLimits, slots: _Slots) -> None:
        self._answer = answer
        self._limits = limits
        self._slots = slots
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.waits = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        host, *_ = transport.get_extra_info("peername") or ("",)
        self._abort_after(self._limits.receive_seconds)
        if not self._slots.admit(self, host):
            self._send(SmallAnswer(HTTPStatus.SERVICE_UNAVAILABLE, _REFUSED))

    def data_received(self, data: bytes) -> None:
        if not self.waits:  # what follows the first request is not read
            return
        self._received += data
        head, end, _ = bytes(self._received).partition(_END)
        if len(head) > self._limits.max_header_bytes:
            self._send(SmallAnswer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b'{"error": "too_large"}'))
        elif end:
            self._send_answer(head)

    def connection_lost(self, _: Exception | None) -> None:
        self._slots.release(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _send_answer(self, head: bytes) -> None:
        request = _read_request(head)
        if request is None:
            self._send(SmallAnswer(HTTPStatus.BAD_REQUEST, b'{"error": "bad_request"}'))
        elif request.method not in ("GET", "HEAD"):
            self._send(SmallAnswer(HTTPStatus.METHOD_NOT_ALLOWED, b'{"error": "method_not_allowed"}'))
        else:
            self._send(self._answer_or_error(request), has_body=request.method == "GET")

    def _answer_or_error(self, request: SmallRequest) -> SmallAnswer:
        try:
            return self._answer(request)
        except Exception:
            log.exception("request failed", path=request.path)
            return SmallAnswer(HTTPStatus.INTERNAL_SERVER_ERROR, b'{"error": "internal"}')

    def _send(self, answer: SmallAnswer, *, has_body: bool = True) -> None:
        """Write an answer and close, at the latest when the client has had its time to read it."""
        assert self._transport is not None
        self.waits = False
        self._abort_after(self._limits.send_seconds)
        head = (
            f"HTTP/1.1 {answer.status:d} {answer.status.phrase}\r\nContent-Type: {answer.content_type}\r\n"
            f"Cache-Control: no-store\r\nConnection: close\r\nContent-Length: {len(answer.body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + (answer.body if has_body else b""))
        self._transport.close()

    def _abort_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.abort)


def _read_request(head: bytes) -> SmallRequest | None:
    """Read the first line and the hosts; None if it is not HTTP."""
    first, *lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        return None
    method, target, _ = parts
    fields = [line.partition(":") for line in lines]
    hosts = [value.strip() for name, _, value in fields if name.lower() == "host"]
    if "://" in (whole := target.partition("?")[0]):
        authority, slash, path = whole.partition("://")[2].partition("/")
        hosts.append(authority.rpartition("@")[2])
        target = slash + path
    return SmallRequest(method, target.partition("?")[0], tuple(hosts))


def _listen(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
