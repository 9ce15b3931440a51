"""A query service with given answers, over real HTTP on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class StubQueryService:
    """`answers` maps "METHOD path" to (status, body); the body of a redirect is the address it leads to.

    A body may be a function of the request's JSON. `requests` keeps the requests.
    """

    answers: dict[str, tuple[int, Any]]
    url: str = ""
    requests: list[tuple[str, Mapping[str, str], Any]] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[StubQueryService]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(None)

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, request: Any) -> None:
                call = f"{self.command} {self.path}"
                stub.requests.append((call, dict(self.headers), request))
                unknown = (404, {"error": {"code": "unknown_route", "message": "no such route"}})
                status, body = stub.answers.get(call, unknown)
                body = body(request) if callable(body) else body
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", body)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None: ...

        return Handler


def refusal(code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"because of {code}", "request_id": "r1"}}
