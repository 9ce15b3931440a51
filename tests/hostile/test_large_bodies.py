"""The largest wrong request of each kind costs little: others are answered meanwhile.

The limit is on processor time and not on waiting, because other work on the machine stretches the latter.
"""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from event_log.memory.clients import MemoryLog, MemoryPublisher
from query_api.contract.route import JSON
from query_api.route_table import ROUTES
from tests.hostile.limits import (
    MAX_SECONDS,
    MEMORY_FACTOR,
    SMALL_INPUT,
    assert_others_are_answered,
    earlier_objects_frozen,
)
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
LARGEST = 16 * 2**20
LARGEST_ERROR = 8 * 1024
PATCHED = "/v1/contents/{content_id}"
TYPED = {"Content-Type": "application/json"}


@pytest.fixture
async def service(small_index: SmallIndex, start_service: StartService) -> Client:
    log = MemoryLog()
    log.create_topic(TOPIC, 2)
    return await start_service(small_index, publisher=MemoryPublisher(log), max_body_bytes=LARGEST)


def filled(start: bytes, item: bytes, end: bytes, size: int) -> bytes:
    """Repeat an item so often that the body has just less than `size` bytes."""
    return start + b",".join([item] * ((size - len(start) - len(end)) // (len(item) + 1))) + end


def many_keys(start: bytes, value: bytes, end: bytes, size: int) -> bytes:
    number = (size - len(start) - len(end)) // (len(value) + 11)
    return start + b",".join(b'"%07d":%s' % (n, value) for n in range(number)) + end


LISTS: dict[str, tuple[str, bytes, bytes, bytes]] = {
    "a vector of texts": ("/v1/search", b'{"vector":[', b'""', b"]}"),
    "a vector of numbers": ("/v1/search", b'{"vector":[', b"1", b"]}"),
    "a vector of lists": ("/v1/search", b'{"vector":[', b"[]", b"]}"),
    "queries that are none": ("/v1/search", b'{"queries":[', b"0", b"]}"),
    "empty queries": ("/v1/search", b'{"queries":[', b"{}", b"]}"),
    "queries of a batch that are none": ("/v1/search/batch", b'{"queries":[', b"0", b"]}"),
    "terms that are none": ("/v1/search", b'{"terms":[', b"0", b"]}"),
    "conditions that are none": ("/v1/search", b'{"text":"a","filter":{"must":[', b"0", b"]}}"),
    "values that are none": (
        "/v1/browse",
        b'{"filter":{"must":[{"field":"source","any_of":[',
        b"[]",
        b"]}]}}",
    ),
    "includes that are none": ("/v1/browse", b'{"include":[', b"0", b"]}"),
    "fields that are none": ("/v1/counts", b'{"fields":[', b'""', b"]}"),
    "facets of fields that are none": ("/v1/facets", b'{"fields":[', b'""', b"]}"),
    "examples that are none": ("/v1/recommend", b'{"positive":[', b"0", b"]}"),
    "contents that are none": ("/v1/embed", b'{"contents":[', b"{}", b"]}"),
    "uploads that are none": ("/v1/contents/batch", b'{"contents":[', b"0", b"]}"),
    "values of a delete that are none": (
        "/v1/contents/delete",
        b'{"filter":{"must":[{"field":"source","any_of":[',
        b"[]",
        b"]}]}}",
    ),
    "a list for an object": ("/v1/search", b"[", b"[]", b"]"),
    "one field again and again": ("/v1/search", b"{", b'"x":0', b"}"),
}
KEYS: dict[str, tuple[str, bytes, bytes, bytes]] = {
    "unknown fields of a search": ("/v1/search", b"{", b"0", b"}"),
    "unknown fields of a count": ("/v1/counts", b"{", b"[]", b"}"),
    "unknown fields of a filter": ("/v1/browse", b'{"filter":{', b"0", b"}}"),
    "unknown shards": ("/v1/search", b'{"text":"a","min_offsets":{', b"0", b"}}"),
    "offsets that are none": ("/v1/search", b'{"text":"a","min_offsets":{', b'""', b"}}"),
    "metadata": ("/v1/contents", b'{"content_id":"a","content":{"text":"b"},"metadata":{', b"1", b"}}"),
    "unknown fields of a patch": (PATCHED, b"{", b"0", b"}"),
    "metadata of a patch": (PATCHED, b'{"metadata":{', b"null", b"}}"),
    "metadata that is none": ("/v1/contents", b'{"content_id":"a","metadata":{', b"[]", b"}}"),
}
BODIES = {
    **{
        f"{name}, {size}": (path, filled(*parts, size))
        for name, (path, *parts) in LISTS.items()
        for size in (60_000, 2**20, LARGEST)
    },
    **{
        f"{name}, {size}": (path, many_keys(*parts, size))
        for name, (path, *parts) in KEYS.items()
        for size in (60_000, 2**20, LARGEST)
    },
    "a long name of a field": ("/v1/search", b'{"' + b"A" * (LARGEST - 100) + b'": 1}'),
    "a long name of a shard": (
        "/v1/search",
        b'{"text":"a","min_offsets":{"' + b"A" * (LARGEST - 100) + b'": 1}}',
    ),
    "a long text": ("/v1/search", b'{"text":"' + b"A" * (LARGEST - 100) + b'"}'),
    "a long text of an upload": (
        "/v1/contents",
        b'{"content_id":"a","content":{"text":"' + b"A" * (LARGEST - 100) + b'"}}',
    ),
    "a long cursor": ("/v1/search", b'{"cursor":"' + b"A" * (LARGEST - 100) + b'"}'),
    "blanks": ("/v1/search", b" " * (LARGEST - 100)),
    "brackets": ("/v1/search", b"[" * (LARGEST - 100)),
    "many pictures": (
        "/v1/embed",
        filled(b'{"contents":[', b'{"image":"' + b"A" * 1024 + b'"}', b"]}", LARGEST),
    ),
}


def test_every_route_that_takes_a_json_body_is_tried() -> None:
    taking = {route.path for route in ROUTES if JSON in route.bodies}
    assert taking <= {path for path, _ in BODIES.values()}


async def cost_of(call: Callable[[], Awaitable[Any]]) -> float:
    with earlier_objects_frozen():
        began = time.process_time()
        await call()
        return time.process_time() - began


@pytest.mark.parametrize(("path", "body"), BODIES.values(), ids=BODIES)
async def test_a_wrong_body_costs_little_and_gets_a_small_answer(
    service: Client, path: str, body: bytes
) -> None:
    async def send() -> None:
        method, place = ("PATCH", "/v1/contents/a") if path == PATCHED else ("POST", path)
        response = await service.request(method, place, data=io.BytesIO(body), headers=TYPED)
        answer = await response.read()
        assert 400 <= response.status < 500
        assert len(answer) < LARGEST_ERROR
        assert json.loads(answer)["error"]["code"] != "internal"

    assert await cost_of(send) < MAX_SECONDS
    if len(body) > LARGEST // 2:  # the smaller ones cost less
        await assert_others_are_answered(service, send)
    tracemalloc.start()
    try:
        await send()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_FACTOR * max(len(body), SMALL_INPUT)


FORM = "multipart/form-data; boundary=b"
LARGE_FORMS = {
    "line ends": b"\r\n" * (LARGEST // 2 - 100),
    "line ends behind a boundary": b"--b" + b"\r\n" * (LARGEST // 2 - 100),
    "bare line ends": b"--b\r\n" + b"\n" * (LARGEST - 100),
    "headers": b"--b\r\n" + b"X: y\r\n" * (LARGEST // 6 - 100),
    "boundaries": b"--b\r\n" * (LARGEST // 5 - 100),
    "empty parts": b"--b\r\n\r\n\r\n" * (LARGEST // 9 - 100),
    "named parts": b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%d"\r\n\r\n\r\n' % n for n in range(LARGEST // 60)
    ),
    "boundaries that go on": b'--b\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
    + b"\r\n--bb" * (LARGEST // 7 - 100),
    "no boundary": b"-" * (LARGEST - 100),
    "a query that is large": b'--b\r\nContent-Disposition: form-data; name="query"\r\n\r\n'
    + filled(b'{"vector":[', b'""', b"]}", LARGEST - 200)
    + b"\r\n--b--",
}


@pytest.mark.parametrize("body", LARGE_FORMS.values(), ids=LARGE_FORMS)
@pytest.mark.parametrize("path", ["/v1/search", "/image_url"])
async def test_a_wrong_form_costs_little_and_gets_a_small_answer(
    service: Client, path: str, body: bytes
) -> None:
    async def send() -> None:
        response = await service.post(path, data=io.BytesIO(body), headers={"Content-Type": FORM})
        assert 400 <= response.status < 500
        assert len(await response.read()) < LARGEST_ERROR

    assert await cost_of(send) < MAX_SECONDS
    if len(body) > LARGEST // 2:  # the smaller ones cost less
        await assert_others_are_answered(service, send)


CONTENT_TYPES = {
    "semicolons": "multipart/form-data;" + ";" * 7000,
    "parameters": "multipart/form-data; " + "a=b;" * 1700,
    "quotes": "multipart/form-data; " + 'a="' * 2300,
}


@pytest.mark.parametrize("content_type", CONTENT_TYPES.values(), ids=CONTENT_TYPES)
@pytest.mark.parametrize("path", ["/v1/search", "/v1/contents"])
async def test_a_long_content_type_is_refused_unread(service: Client, path: str, content_type: str) -> None:
    async def send() -> None:
        response = await service.post(path, data=b"x", headers={"Content-Type": content_type})
        assert response.status == 400

    assert await cost_of(send) < MAX_SECONDS / 5


async def test_a_wrong_body_that_is_small_on_the_way_costs_no_more(service: Client) -> None:
    body = gzip.compress(filled(b'{"vector":[', b'""', b"]}", LARGEST))
    headers = {**TYPED, "Content-Encoding": "gzip"}

    async def send() -> None:
        assert (await service.post("/v1/search", data=body, headers=headers)).status == 413

    assert await cost_of(send) < MAX_SECONDS


async def test_an_answer_about_unknown_shards_names_some_of_them(service: Client) -> None:
    body = {"text": "a", "min_offsets": {f"others-{n}": 1 for n in range(4000)}}
    response = await service.post("/v1/search", json=body)
    error = (await response.json())["error"]
    assert error["code"] == "unknown_partition"
    assert len(error["details"]) == 10
    assert len(error["message"]) < 1100
