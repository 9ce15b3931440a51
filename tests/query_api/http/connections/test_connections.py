"""Connections that mean no good, or no hurry: each is answered or closed in time, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry

from fakes.hash_encoder import HashEncoder
from query_api.app import AppSettings, build_app
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, listening
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.small_index import SmallIndex

LIMITS = ConnectionLimits(idle_seconds=0.6, send_seconds=0.3, lingering_seconds=0.2)
RECEIVE_SECONDS = 0.5
HEAD = (
    "POST /v1/search HTTP/1.1\r\nHost: [::]\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
)


@contextlib.asynccontextmanager
async def serving(
    small_index: SmallIndex, limits: ConnectionLimits, receive_seconds: float
) -> AsyncIterator[tuple[str, int]]:
    """A service on a socket of its own."""
    reader = small_index.open_reader()
    reader.reload()
    settings = AppSettings(max_body_bytes=1 << 20, receive_timeout_seconds=receive_seconds)
    app = build_app(HashEncoder(), reader, CollectorRegistry(), settings)
    async with listening(app, Address("127.0.0.1", 0), limits, shutdown_seconds=1.0) as place:
        host, _, port = place.rpartition(":")
        yield host, int(port)


@pytest.fixture
async def address(small_index: SmallIndex) -> AsyncIterator[tuple[str, int]]:
    """Where a service with short deadlines listens."""
    async with serving(small_index, LIMITS, RECEIVE_SECONDS) as address:
        yield address


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, even if it is a reset: then there was more to send than the service would take."""
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := await reader.read(65536):
            answer += part
    return answer


async def talk(address: tuple[str, int], *parts: str, every_seconds: float = 0.0) -> tuple[bytes, float]:
    """Send the parts one by one; return all that is answered until the end, and the seconds it took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(*address)
    reading = asyncio.create_task(read_all(reader))
    for part in parts:
        if reading.done():
            break
        writer.write(part.encode("latin-1"))
        await asyncio.sleep(every_seconds)
    answer = await asyncio.wait_for(reading, PATIENCE_SECONDS)
    writer.close()
    return answer, time.monotonic() - began


def error_of(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


UNREADABLE = {
    "no HTTP": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", (400, "bad_request")),
    "a header without a colon": ("GET / HTTP/1.1\r\nHost x\r\n\r\n", (400, "bad_request")),
    "two lengths": (
        "POST / HTTP/1.1\r\nHost: [::]\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        (400, "bad_request"),
    ),
    "a long header": (
        f"GET / HTTP/1.1\r\nHost: [::]\r\nX-Long: {'a' * 9000}\r\n\r\n",
        (431, "headers_too_large"),
    ),
    "a host that is none": (
        "GET http://xn--/livez HTTP/1.1\r\nHost: [::]\r\n\r\n",
        (400, "bad_request"),
    ),
    "brackets without a host": (
        "GET http://[]@/livez HTTP/1.1\r\nHost: [::]\r\n\r\n",
        (400, "bad_request"),
    ),
    "a long path": (f"GET /{'a' * 9000} HTTP/1.1\r\nHost: [::]\r\n\r\n", (431, "headers_too_large")),
}


@pytest.mark.parametrize(("text", "expected"), UNREADABLE.values(), ids=UNREADABLE)
async def test_what_is_no_request_gets_the_one_error_shape(
    address: tuple[str, int], text: str, expected: tuple[int, str]
) -> None:
    answer, _ = await talk(address, text)
    assert error_of(answer) == expected


async def test_too_many_headers_are_refused(address: tuple[str, int]) -> None:
    headers = "".join(f"X-{number}: a\r\n" for number in range(100))
    answer, _ = await talk(address, f"GET / HTTP/1.1\r\nHost: [::]\r\n{headers}\r\n")
    assert error_of(answer)[0] in (400, 431)


async def test_a_silent_connection_is_closed(address: tuple[str, int]) -> None:
    answer, seconds = await talk(address)
    assert answer == b""
    assert seconds > 0.4


async def test_headers_that_come_byte_by_byte_are_cut_off(address: tuple[str, int]) -> None:
    answer, seconds = await talk(address, *HEAD, every_seconds=0.05)
    assert answer == b""  # whole, they would be answered
    assert seconds > 0.4


async def test_a_body_that_comes_byte_by_byte_is_a_408(address: tuple[str, int]) -> None:
    answer, seconds = await talk(address, HEAD, *('{"text": "a"' + " " * 200), every_seconds=0.02)
    assert error_of(answer) == (408, "request_timeout")
    assert seconds >= RECEIVE_SECONDS


async def test_a_chunked_body_that_never_ends_is_a_408(address: tuple[str, int]) -> None:
    head = HEAD.replace("Content-Length: 1000", "Transfer-Encoding: chunked")
    answer, _ = await talk(address, head, *["1\r\na\r\n"] * 200, every_seconds=0.02)
    assert error_of(answer) == (408, "request_timeout")


async def test_each_request_has_its_own_time(
    small_index: SmallIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(small_index, ConnectionLimits(idle_seconds=2.0), receive_seconds=2.0) as address:
        reader, writer = await asyncio.open_connection(*address)
        with stopped_clock(monkeypatch) as move:
            for _ in range(9):
                writer.write(b"GET /livez HTTP/1.1\r\nHost: [::]\r\n\r\n")
                assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")
                await move(1.5)
            while not reader.at_eof():
                await move(1.5)
        writer.close()


@contextlib.contextmanager
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float], Awaitable[None]]]:
    """The event loop's clock goes only as it is moved; yields what moves it."""
    loop = asyncio.get_running_loop()
    now = loop.time()

    async def move(seconds: float) -> None:
        nonlocal now
        now += seconds
        await asyncio.sleep(0)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "time", lambda: now)
        yield move


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer, and leave the connection open."""
    head = await reader.readuntil(b"\r\n\r\n")
    [length] = re.findall(rb"Content-Length: (\d+)", head)
    return head + await reader.readexactly(int(length))


async def test_an_answer_that_nobody_reads_is_given_up(address: tuple[str, int]) -> None:
    _, writer = await asyncio.open_connection(*address, limit=1024)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    body = json.dumps({"text": "red", "include": ["vector", "text"], "k": 1000})
    ask = f"{HEAD.replace('1000', str(len(body)))}{body}".encode()
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(write_for_ever(writer, ask), PATIENCE_SECONDS)
    writer.close()


async def write_for_ever(writer: asyncio.StreamWriter, data: bytes) -> None:
    while True:
        writer.write(data)
        await writer.drain()
        await asyncio.sleep(0)
