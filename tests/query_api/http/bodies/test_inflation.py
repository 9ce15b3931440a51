"""A compressed body costs no more than it may be large, however far it would inflate."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from query_api.errors import ApiError
from query_api.http.bodies.inflation import inflate
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]
DATA = bytes(range(256)) * 2000  # several pieces
LIMIT = 1 << 20
TYPED = {"Content-Type": "application/json"}


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


SOUND = {
    "gzip": ("gzip", gzip.compress(DATA)),
    "gzip by its old name": ("x-gzip", gzip.compress(DATA)),
    "gzip in members": ("gzip", gzip.compress(DATA[:1000]) + gzip.compress(DATA[1000:])),
    "gzip filled up with zeros": ("gzip", gzip.compress(DATA) + bytes(512)),
    "gzip without compression": ("gzip", gzip.compress(DATA, 0)),
    "deflate": ("deflate", zlib.compress(DATA)),
    "deflate without a header": ("deflate", raw_deflate(DATA)),
}
DAMAGED = {
    "nothing": ("gzip", b""),
    "no gzip": ("gzip", DATA),
    "gzip cut off": ("gzip", gzip.compress(DATA)[:-10]),
    "gzip with a wrong checksum": ("gzip", gzip.compress(DATA)[:-8] + bytes(8)),
    "gzip and more": ("gzip", gzip.compress(DATA) + b"more"),
    "deflate cut off": ("deflate", zlib.compress(DATA)[:-1]),
    "gzip of empty members without end": ("gzip", gzip.compress(b"") * 100_000),
    "deflate and more": ("deflate", zlib.compress(DATA) + b"more"),
}
BOMBS = {
    "gzip": ("gzip", gzip.compress(bytes(200 * LIMIT))),
    "gzip in members": ("gzip", gzip.compress(bytes(LIMIT // 2)) * 100),
    "deflate": ("deflate", zlib.compress(bytes(200 * LIMIT))),
    "deflate without a header": ("deflate", raw_deflate(bytes(200 * LIMIT))),
}


@pytest.mark.parametrize(("encoding", "body"), SOUND.values(), ids=SOUND)
def test_a_sound_body_is_inflated(encoding: str, body: bytes) -> None:
    assert inflate(body, encoding, LIMIT) == DATA
    assert inflate(body, encoding, len(DATA)) == DATA


@pytest.mark.parametrize(("encoding", "body"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_body_is_a_bad_body(encoding: str, body: bytes) -> None:
    with pytest.raises(ApiError, match="cannot be decoded") as refused:
        inflate(body, encoding, LIMIT)
    assert refused.value.code == "bad_body"


@pytest.mark.parametrize(("encoding", "body"), BOMBS.values(), ids=BOMBS)
def test_inflating_stops_at_the_limit_in_time_and_memory(encoding: str, body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="when inflated") as refused:
            inflate(body, encoding, LIMIT)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refused.value.code == "body_too_large"
    assert most < 4 * LIMIT


async def test_bombs_do_not_hold_the_event_loop(small_index: SmallIndex, start_service: StartService) -> None:
    client = await start_service(small_index, max_body_bytes=16 << 20)
    bomb = gzip.compress(bytes(1 << 28))
    headers = {**TYPED, "Content-Encoding": "gzip"}
    bombing = [asyncio.create_task(client.post("/v1/search", data=bomb, headers=headers)) for _ in range(8)]
    longest, before = 0.0, time.monotonic()
    while not all(task.done() for task in bombing):
        await asyncio.sleep(0.001)
        longest, before = max(longest, time.monotonic() - before), time.monotonic()
    assert {task.result().status for task in bombing} == {413}
    assert longest < 0.5


async def test_forms_and_raw_bodies_are_inflated_too(client: Client) -> None:
    form = b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\na red dress\r\n--b--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Encoding": "gzip"}
    by_form = await client.post("/v1/search", data=gzip.compress(form), headers=headers)
    by_body = await client.post(
        "/mv_retrieval/v0.1/retrieve_contents?type=text",
        data=zlib.compress(b"a red dress"),
        headers={"Content-Encoding": "deflate"},
    )
    assert (by_form.status, by_body.status) == (200, 200)
