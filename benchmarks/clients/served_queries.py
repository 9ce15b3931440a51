"""A query service in this process, and clients that ask it from another process."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import IO, Any

from aiohttp import web
from prometheus_client import CollectorRegistry

from benchmarks.data import DIMENSION
from benchmarks.processes.cores import short_turns
from clip_index.content import Embeddings
from clip_index.encoder.protocol import Encoder, EncoderFingerprint, Prepared, PreparedImage, PreparedText
from clip_index.reading.index_reader import IndexReader
from query_api.app import AppSettings, build_app
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, listening
from query_api.http.guards.rate_limit import RateLimit
from service.process.gc_tuning import freeze_gc

_UNLIMITED = RateLimit(per_second=1e9, burst=10**9)


class NoEncoder:
    """Has the generated index's fingerprint. Encoding raises, because vector queries need no encoder."""

    fingerprint = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")

    def prepare_image(self, data: bytes) -> PreparedImage:
        raise AssertionError("a vector query needs no encoder")

    def prepare_text(self, text: str) -> PreparedText:
        raise AssertionError("a vector query needs no encoder")

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        raise AssertionError("a vector query needs no encoder")


def vector_body(query: Embeddings, **options: Any) -> dict[str, Any]:
    """Build the body of a vector query as clients write it."""
    return {"vector": [round(float(x), 7) for x in query], **options}


def batch_body(queries: Sequence[dict[str, Any]]) -> str:
    return json.dumps({"queries": queries})


@contextmanager
def serving(encoder: Encoder, reader: IndexReader) -> Iterator[int]:
    """Serve an index on a free loopback port; yield the port.

    Percentiles are off, because their scales would be built during the measurement. The rate limit is
    high enough for one fast caller. Garbage collector and threads are tuned as in the service's own process.
    """
    settings = AppSettings(has_percentiles=False, rate_limit=_UNLIMITED)
    app = build_app(encoder, reader, CollectorRegistry(), settings)
    with _tuned_as_services_are(), serving_app(app) as port:
        yield port


@contextmanager
def _tuned_as_services_are() -> Iterator[None]:
    threshold = gc.get_threshold()
    freeze_gc()
    try:
        with short_turns():
            yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)


@contextmanager
def serving_app(app: web.Application) -> Iterator[int]:
    """Serve an application from another thread with the service's own listener; yield the port."""
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        async with listening(app, Address("127.0.0.1", 0), ConnectionLimits()) as address:
            started.set_result((int(address.rpartition(":")[2]), asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    port, loop, stop = started.result(timeout=60)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


class Clients:
    """Clients in a child process, so that they share neither our CPU time nor our GIL."""

    def __init__(self, sending: IO[str], receiving: IO[str]) -> None:
        self._sending = sending
        self._receiving = receiving

    def prepare(self, bodies: Sequence[Sequence[str]]) -> None:
        """Hand over the bodies that each client will send, one after another."""
        self._send(json.dumps(bodies))
        if self._receiving.readline() != "ready\n":
            raise RuntimeError("the clients did not start")

    def ask(self) -> list[list[float]]:
        """Let the clients send the prepared bodies. Return the seconds of each client's requests."""
        self._send("")
        seconds: list[list[float]] = json.loads(self._receiving.readline())
        return seconds

    def _send(self, line: str) -> None:
        self._sending.write(line + "\n")
        self._sending.flush()


@contextmanager
def clients_of(port: int, path: str = "/v1/search") -> Iterator[Clients]:
    command = [sys.executable, "-m", "benchmarks.clients.search_client", str(port), path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield Clients(process.stdin, process.stdout)
