"""`/livez`, `/readyz` and `/metrics`, on a listener of their own (loopback unless told otherwise).

- live: every thread runs, and intake has polled lately. Red means: restart the process.
- ready: live, joined, not stopping, no failure (a flood of dead letters is one), and every
  shard's disk takes commits. A consumer without partitions is ready: it stands by.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from consumer.pipeline import Pipeline

_JSON = "application/json"
_REQUEST_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Health:
    """Empty lists mean well; otherwise each entry says what is wrong."""

    not_live: list[str]
    not_ready: list[str]


def check_health(pipeline: Pipeline, *, stalled_after_seconds: float) -> Health:
    not_live = [f"the {name} thread has ended" for name in pipeline.dead_threads]
    if pipeline.seconds_since_poll > stalled_after_seconds:
        not_live.append(f"no poll for {pipeline.seconds_since_poll:.0f} seconds")
    not_ready = list(not_live)
    if pipeline.failure is not None:
        not_ready.append(f"failed: {pipeline.failure}")
    if pipeline.is_stopping:
        not_ready.append("stopping")
    if not pipeline.is_writable:
        not_ready.append("the index cannot be written")
    return Health(not_live, not_ready)


class HealthListener:
    """An HTTP server in a thread of its own; `port` 0 takes a free one."""

    def __init__(
        self, host: str, port: int, *, check: Callable[[], Health], registry: CollectorRegistry
    ) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler_class(check, registry))
        self._server.daemon_threads = True
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


def _handler_class(check: Callable[[], Health], registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_SECONDS

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/livez":
                self._answer_health(check().not_live)
            elif path == "/readyz":
                self._answer_health(check().not_ready)
            elif path == "/metrics":
                self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))
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

    return Handler
