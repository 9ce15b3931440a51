"""Sockets: where the service listens."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from query_api.http.connections.aiohttp_parts import can_build, tells_waiting, track_requests
from query_api.http.connections.connection import Connection, ConnectionLimits
from query_api.http.connections.open_connections import OpenConnections
from query_api.http.connections.stopping import STOPPING
from query_api.telemetry.metrics import METRICS


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes a free one; `is_shared` lets other processes listen there too."""

    host: str
    port: int
    is_shared: bool = False


class AddressRefused(Exception):
    """The operating system does not let this process listen there, or does not know the host."""

    def __init__(self, address: Address, error: OSError) -> None:
        self.address = address
        self.is_unknown_host = isinstance(error, socket.gaierror)
        # Not `error.strerror` in both cases: asyncio writes the address into it, which stands here already.
        reason = error.strerror if self.is_unknown_host else os.strerror(error.errno or 0)
        super().__init__(f"cannot listen on {address.host}:{address.port}: {reason}")


@asynccontextmanager
async def listening(
    app: web.Application, address: Address, limits: ConnectionLimits, shutdown_seconds: float = 30.0
) -> AsyncIterator[str]:
    """Start the application and listen; yield `host:port`. Raises `AddressRefused`.

    At the end, requests that have begun to arrive have `shutdown_seconds` to be answered.
    """
    runner = web.AppRunner(app, shutdown_timeout=shutdown_seconds)
    connections = OpenConnections(limits.max_connections, limits.num_reserved, app.get(METRICS))
    if not tells_waiting(web.RequestHandler):
        app.middlewares.insert(0, track_requests)
    await runner.setup()
    try:
        server = await _open_server(address, _connect(runner, limits, connections), limits)
        try:
            host, port, *_ = server.sockets[0].getsockname()
            yield f"{host}:{port}"
        finally:
            server.close()
            connections.are_closing = True
            if (stopping := app.get(STOPPING)) is not None:
                stopping.begin()
    finally:
        await runner.cleanup()


def _connect(
    runner: web.AppRunner, limits: ConnectionLimits, connections: OpenConnections
) -> Callable[[], asyncio.Protocol]:
    """Return what makes a connection: ours, or aiohttp's own where ours cannot be built."""

    def connect() -> Connection:
        return Connection(runner, limits, connections)

    assert runner.server is not None
    return connect if can_build(connect) else runner.server


async def _open_server(
    address: Address, connect: Callable[[], asyncio.Protocol], limits: ConnectionLimits
) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            connect,
            address.host,
            address.port,
            backlog=min(1024, limits.max_connections),  # asyncio accepts up to this many in one go
            reuse_port=address.is_shared or None,
        )
    except OSError as error:
        raise AddressRefused(address, error) from error
    except UnicodeError as error:  # no name of a host can be so long, or have such parts
        raise AddressRefused(address, socket.gaierror(socket.EAI_NONAME, "not a host's name")) from error
