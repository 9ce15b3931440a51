"""A proxy before an object server, which answers chosen requests as stores and networks do on a bad day."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 30.0
_OF_THE_CONNECTION = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date"})


@dataclass(frozen=True)
class Asked:
    """One request; `number` counts from 1."""

    number: int
    method: str
    path: str
    num_bytes: int

    @property
    def is_completion(self) -> bool:
        """Whether it ends an upload in parts."""
        return self.method == "POST" and "uploadId=" in self.path


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Reset:
    """The connection ends without an answer. `is_done`: after the server has carried the request out."""

    is_done: bool = False


@dataclass(frozen=True)
class CutShort:
    """The body ends before the length that its header says."""


Fate = Answer | Reset | CutShort | None
"""What becomes of a request; None: the server's answer is passed on."""


def xml_error(code: str, message: str = "as a test wants it") -> bytes:
    text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}'.encode()


class FaultyProxy:
    """`decide` may be replaced at any time. `asked` are all requests so far."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        self.asked: list[Asked] = []
        self.decide: Callable[[Asked], Fate] = lambda _: None
        self._mutex = threading.Lock()

    def fate_of(self, method: str, path: str, num_bytes: int) -> Fate:
        with self._mutex:
            asked = Asked(len(self.asked) + 1, method, path, num_bytes)
            self.asked.append(asked)
            return self.decide(asked)


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[tuple[FaultyProxy, str]]:
    """Run a proxy before the server of that URL; yield it with its own URL."""
    proxy = FaultyProxy(upstream)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(proxy))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


_METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")


def _handler_of(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    methods = {f"do_{method}": _Handler.pass_on for method in _METHODS}
    return type("Handler", (_Handler,), {"proxy": proxy, **methods})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fate = self.proxy.fate_of(self.command, self.path, len(body))
        if isinstance(fate, Reset) and not fate.is_done:
            self.close_connection = True
        elif isinstance(fate, Answer):
            self._answer(fate)
        else:
            answer = self._ask_server(body)
            if isinstance(fate, Reset):
                self.close_connection = True
            else:
                self._answer(answer, is_cut=isinstance(fate, CutShort))

    def _ask_server(self, body: bytes) -> Answer:
        """Ask with the same headers, because the signature covers the name of the host."""
        upstream = self.proxy.upstream
        connection = http.client.HTTPConnection(
            upstream.hostname or "", upstream.port, timeout=_TIMEOUT_SECONDS
        )
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            response = connection.getresponse()
            return Answer(response.status, response.read(), dict(response.getheaders()))
        finally:
            connection.close()

    def _answer(self, answer: Answer, *, is_cut: bool = False) -> None:
        self.send_response(answer.status)
        length = str(len(answer.body))
        for name, value in answer.headers.items():
            if name.lower() == "content-length":
                length = value  # that of a HEAD is not the length of its body
            elif name.lower() not in _OF_THE_CONNECTION:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if is_cut else answer.body)
        self.close_connection = self.close_connection or is_cut

    def log_message(self, *_: object) -> None:
        pass
