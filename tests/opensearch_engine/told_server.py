"""A server that answers each path as a test says, in the place of OpenSearch."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RIGHT_VERSION = {"version": {"distribution": "opensearch", "number": "2.19.1"}}


class ToldServer:
    """`answers` holds status and document for each beginning of `METHOD /path`; `GET /` stands for itself."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, object]] = {"GET /": (200, RIGHT_VERSION)}
        self.headers: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer_to(self, request: str) -> tuple[int, object]:
        if request in self.answers:
            return self.answers[request]
        matching = [told for told in self.answers if told != "GET /" and request.startswith(told)]
        return self.answers[max(matching, key=len)] if matching else (404, {"error": "no such thing"})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                told.headers.append({name.lower(): value for name, value in self.headers.items()})
                status, document = told.answer_to(f"{self.command} {self.path}")
                body = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_PUT = do_POST = do_GET  # noqa: N815 (the names that the server looks for)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


@contextmanager
def told_server() -> Iterator[ToldServer]:
    server = ToldServer()
    try:
        yield server
    finally:
        server.close()
