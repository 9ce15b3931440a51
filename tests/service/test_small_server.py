"""The small server answers health checks while hundreds of slow clients hold what they can."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus

import pytest

from service.small_server import ServerLimits, SmallAnswer, SmallRequest, SmallServer

PATIENCE_SECONDS = 20.0
GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def tell(request: SmallRequest) -> SmallAnswer:
    return SmallAnswer(HTTPStatus.OK, f"{request.path} {' '.join(request.hosts)}".encode(), "text/plain")


@contextmanager
def serving(limits: ServerLimits | None = None, answer: bytes | None = None) -> Iterator[int]:
    said = None if answer is None else SmallAnswer(HTTPStatus.OK, answer)
    server = SmallServer("127.0.0.1", 0, tell if said is None else lambda _: said, limits)
    server.start()
    try:
        yield server.port
    finally:
        server.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)


def read_all(connection: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            answer += part
    return answer


def ask(port: int, sent: bytes = GET) -> tuple[int, bytes]:
    with connect(port) as connection:
        connection.sendall(sent)
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    return int(head.split()[1]), body


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nX-Slow: "], ids=["silent", "slow headers"])
def test_hundreds_of_slow_connections_take_no_thread_and_health_is_told_meanwhile(sent: bytes) -> None:
    with serving() as port, ExitStack() as stack:
        num_threads = threading.active_count()
        for number in range(400):
            with contextlib.suppress(ConnectionError):
                connection = stack.enter_context(connect(port))
                connection.sendall(sent)
            if number % 50 == 0:
                assert ask(port) == (200, b"/livez localhost")
        assert threading.active_count() == num_threads
        assert ask(port) == (200, b"/livez localhost")


def test_headers_that_come_byte_by_byte_are_cut_off() -> None:
    with serving(ServerLimits(receive_seconds=0.2)) as port, connect(port) as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < began + PATIENCE_SECONDS:
                connection.sendall(b"G")
                time.sleep(0.02)
        assert time.monotonic() - began < PATIENCE_SECONDS / 2


def test_an_answer_that_nobody_reads_is_given_up_and_frees_its_slot() -> None:
    limits = ServerLimits(max_connections=1, num_reserved=0, send_seconds=0.2)
    with serving(limits, b"x" * 2**24) as port, connect(port) as unread:
        unread.sendall(GET)
        unread.recv(1)
        end = time.monotonic() + PATIENCE_SECONDS
        while ask(port)[0] == 503:
            assert time.monotonic() < end
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"POST /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
        (b"GET /livez HTTP/1.1\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
    ],
)
def test_what_is_not_a_request_for_it_is_refused(sent: bytes, status: int) -> None:
    with serving() as port:
        assert ask(port, sent)[0] == status


def test_every_host_that_a_request_names_is_told() -> None:
    sent = b"GET http://evil.example/livez?a=b HTTP/1.1\r\nHost: localhost\r\nhost: other\r\n\r\n"
    with serving() as port:
        assert ask(port, sent) == (200, b"/livez localhost other evil.example")
        assert ask(port, b"HEAD /livez HTTP/1.0\r\n\r\n") == (200, b"")


def test_a_port_that_is_taken_is_an_error_and_a_server_that_was_not_started_can_be_closed() -> None:
    with serving() as port, pytest.raises(OSError, match="in use"):
        SmallServer("127.0.0.1", port, tell)
    SmallServer("127.0.0.1", 0, tell).close()
