"""`/livez`, `/readyz` and `/metrics` on an HTTP server of their own, on loopback by default.

- Live: every thread runs, and intake has polled lately. A red answer means: restart the process.
- Ready: live, not stopping, without a failure (a flood of dead letters is one), every shard can be
  written, no step waits for the log or the disk, and no partition waits because of a record that only
  a newer release understands. A consumer without partitions is ready, because it stands by.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Collection
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from consumer.pipeline import Pipeline
from service.host_names import are_own_hosts

_JSON = "application/json"
_REQUEST_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Health:
    """Each entry says what is wrong; empty lists mean that all is well."""

    not_live: list[str]
    not_ready: list[str]


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Looks at a pipeline. It is not live when intake has not polled for `stalled_after_seconds`."""

    pipeline: Pipeline
    stalled_after_seconds: float

    def look(self) -> Health:
        not_live = self._problems_of_threads()
        return Health(not_live, [*not_live, *self._problems_of_pipeline()])

    def is_ready(self) -> bool:
        return not self.look().not_ready

    def _problems_of_threads(self) -> list[str]:
        problems = [f"the {name} thread has ended" for name in self.pipeline.dead_threads]
        if self.pipeline.seconds_since_poll > self.stalled_after_seconds:
            problems.append(f"no poll for {self.pipeline.seconds_since_poll:.0f} seconds")
        return problems

    def _problems_of_pipeline(self) -> list[str]:
        problems = []
        if self.pipeline.failure is not None:
            problems.append(f"failed: {self.pipeline.failure}")
        if self.pipeline.is_stopping:
            problems.append("stopping")
        if not self.pipeline.is_writable:
            problems.append("the index cannot be written")
        problems += [f"a partition waits: {reason}" for reason in self.pipeline.waiting_partitions]
        return [*problems, *self.pipeline.outages]


class HealthServer:
    """An HTTP server in a thread of its own. Port 0 takes a free port."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        check: HealthCheck,
        registry: CollectorRegistry,
        host_names: Collection[str] = (),
    ) -> None:
        self._server = _Server((host, port), check, registry)
        self._server.host_names = host_names
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    host_names: Collection[str] = ()

    def __init__(self, address: tuple[str, int], check: HealthCheck, registry: CollectorRegistry) -> None:
        super().__init__(address, _Handler)
        self.check = check
        self.registry = registry


class _Handler(BaseHTTPRequestHandler):
    timeout = _REQUEST_TIMEOUT_SECONDS
    server: _Server

    def do_GET(self) -> None:
        if not are_own_hosts(self.headers.get_all("Host", []), self.server.host_names):
            self._answer(HTTPStatus.FORBIDDEN, _JSON, b'{"error": "unknown_host"}')
            return
        path = self.path.partition("?")[0]
        if path == "/livez":
            self._answer_health(self.server.check.look().not_live)
        elif path == "/readyz":
            self._answer_health(self.server.check.look().not_ready)
        elif path == "/metrics":
            self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(self.server.registry))
        else:
            self._answer(HTTPStatus.NOT_FOUND, _JSON, b'{"error": "not_found"}')

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests are not logged."""

    def _answer_health(self, problems: list[str]) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if problems else HTTPStatus.OK
        body = {"status": "red" if problems else "ok", "problems": problems}
        self._answer(status, _JSON, json.dumps(body).encode())

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
