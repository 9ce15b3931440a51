"""What a hostile client or page sends is refused for what it is, and never costs more than its answer."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry
from yarl import URL

from event_log.memory.clients import MemoryLog, MemoryPublisher
from query_api.contents.live_routes import LIVE_STREAMS
from query_api.http.guards.api_keys import ApiKeys, digest_of
from query_api.route_table import ROUTES
from query_api.telemetry.metrics_app import build_metrics_app
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService, metrics_of
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
QUERY = b'{"text": "red"}'
TYPED = {"Content-Type": "application/json"}


async def error_of(response: ClientResponse) -> tuple[int, str]:
    return response.status, (await response.json())["error"]["code"]


DEEP = b'{"text": "a", "filter": ' + b'{"must": [' * 500 + b"]}" * 500 + b"}"
BODIES = {
    "nested beyond measure": (DEEP, 400, "bad_json"),
    "a number of 5,000 digits": (b'{"text": "a", "k": ' + b"9" * 5000 + b"}", 400, "bad_json"),
    "a number beyond a double": (b'{"text": "a", "min_score": 1e400}', 422, "not_finite"),
    "half a surrogate as a key": (b'{"\\ud800": 1}', 400, "bad_json"),
    "a surrogate in UTF-8": (b'{"text": "\xed\xa0\x80"}', 400, "bad_json"),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), 400, "bad_json"),
}


@pytest.mark.parametrize(("body", "status", "code"), BODIES.values(), ids=BODIES)
async def test_hostile_json_is_refused(client: Client, body: bytes, status: int, code: str) -> None:
    assert await error_of(await client.post("/v1/search", data=body, headers=TYPED)) == (status, code)


async def test_of_a_repeated_key_the_last_one_counts(client: Client) -> None:
    body = b'{"text": "blue", "text": "red", "k": 1000, "k": 1, "modality": "text"}'
    response = await client.post("/v1/search", data=body, headers=TYPED)
    hits = (await response.json())["results"]["text"]["hits"]
    assert [hit["content_id"] for hit in hits] == ["t-red"]


ENCODINGS = {
    "an unknown one": ("x-y", QUERY, 400, "bad_body"),
    "two": ("gzip, gzip", gzip.compress(gzip.compress(QUERY)), 400, "bad_body"),
    "a bomb": ("gzip", gzip.compress(bytes(50_000_000)), 413, "body_too_large"),
    "more behind its end": ("gzip", gzip.compress(QUERY) + b"junk", 400, "bad_body"),
}


@pytest.mark.parametrize(("encoding", "body", "status", "code"), ENCODINGS.values(), ids=ENCODINGS)
async def test_an_encoding_that_is_not_what_it_says_is_refused(
    client: Client, encoding: str, body: bytes, status: int, code: str
) -> None:
    headers = {**TYPED, "Content-Encoding": encoding}
    response = await client.post("/v1/search", data=body, headers=headers)
    assert await error_of(response) == (status, code)


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_fault_of_ours(client: Client) -> None:
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(
        b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    )
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b'{"text": ')
    writer.close()
    answered = 'cliptide_query_requests_total{method="POST",route="/v1/search",status="'
    while answered not in metrics_of(client):  # noqa: ASYNC110 (nobody is left to be answered)
        await asyncio.sleep(0)
    assert f'{answered}400"}} 1.0' in metrics_of(client)


@pytest.mark.parametrize("path", ["/v1/browse", "/v1/counts", "/v1/facets", "/v1/recommend", "/v1/search"])
async def test_json_is_taken_only_as_json(client: Client, path: str) -> None:
    """A page of another origin can send text/plain without asking first, but no JSON."""
    response = await client.post(path, data=b"{}", headers={"Content-Type": "text/plain"})
    assert await error_of(response) == (415, "unsupported_media_type")


@pytest.fixture
async def writable(small_index: SmallIndex, start_service: StartService) -> Client:
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    origins = frozenset({"https://shop.example"})
    return await start_service(small_index, publisher=MemoryPublisher(log), cors_origins=origins)


FOREIGN = {
    "another site": {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    "a sandboxed page": {"Sec-Fetch-Site": "cross-site", "Origin": "null"},
    "another port": {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"},
    "an old browser": {"Origin": "https://evil.example"},
    "another scheme": {"Origin": "https://localhost", "Host": "localhost"},
}
OWN = {
    "a program": {},
    "the page itself in an old browser": {"Origin": "http://LOCALHOST", "Host": "localhost"},
    "the page itself": {"Sec-Fetch-Site": "same-origin", "Origin": "https://behind-a-proxy.example"},
    "a configured origin": {"Sec-Fetch-Site": "cross-site", "Origin": "https://shop.example"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
async def test_a_foreign_page_cannot_make_a_browser_write(writable: Client, headers: dict[str, str]) -> None:
    response = await writable.post("/v1/contents?content_id=x", data="words", headers=headers)
    assert await error_of(response) == (403, "forbidden")
    assert (await writable.get("/v1/search?q=red", headers=headers)).status == 200


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
async def test_programs_and_own_pages_can_write(writable: Client, headers: dict[str, str]) -> None:
    response = await writable.post("/v1/contents?content_id=x", data="words", headers=headers)
    assert response.status == 202


REBOUND = ("evil.example", "evil.example:8080", "localhost.evil.example")


@pytest.mark.parametrize("host", REBOUND)
async def test_without_keys_a_page_that_gives_its_name_this_address_is_refused_everywhere(
    writable: Client, host: str
) -> None:
    headers = {"Host": host, "Sec-Fetch-Site": "same-origin"}
    for route in ROUTES:
        path = route.path.replace("{content_id}", "t-red").replace("{name}", "page.js")
        response = await writable.request(route.method, path, headers=headers)
        assert await error_of(response) == (403, "unknown_host"), path
    assert await error_of(await writable.get("/nothing", headers=headers)) == (403, "unknown_host")


async def test_a_name_that_is_set_is_answered(small_index: SmallIndex, start_service: StartService) -> None:
    service = await start_service(small_index, host_names=frozenset({"search.example"}))
    for host in ("search.example", "Search.Example:8080", "127.0.0.1:1", "[::1]:8080", "localhost"):
        assert (await service.get("/v1/index", headers={"Host": host})).status == 200, host


async def test_a_whole_address_in_the_first_line_counts_as_a_host(client: Client) -> None:
    for target, status in (("http://evil.example/v1/index", b"403"), ("http://localhost/v1/index", b"200")):
        reader, writer = await asyncio.open_connection(client.host, client.port)
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).split(b" ")[1] == status
        writer.close()


async def test_with_keys_any_name_is_answered(small_index: SmallIndex, start_service: StartService) -> None:
    service = await start_service(small_index, keys=ApiKeys(read=frozenset({digest_of("reads")})))
    headers = {"Host": "search.example", "api-key": "reads"}
    assert (await service.get("/v1/index", headers=headers)).status == 200


async def test_metrics_are_shown_to_own_names_only(aiohttp_client: Any) -> None:
    scraped = await aiohttp_client(build_metrics_app(CollectorRegistry(), {"query_api"}))
    for host, status in (("query_api:8082", 200), ("127.0.0.1", 200), ("evil.example", 403)):
        assert (await scraped.get("/metrics", headers={"Host": host})).status == status, host


IDS = ["a/../b", "{id}", "a}", "a\r\nX: y", "a\x00b", "%2F", "ä/ö?ü#", "\u202e"]


@pytest.mark.parametrize("content_id", IDS, ids=[json.dumps(i) for i in IDS])
async def test_any_text_is_a_content_id(
    small_index: SmallIndex, start_service: StartService, content_id: str
) -> None:
    small_index.commit(0, small_index.text(content_id, "an odd hat"))
    client = await start_service(small_index)
    path = "".join(f"%{byte:02x}" for byte in content_id.encode())
    response = await client.get(f"/v1/contents/{path}")
    assert (await response.json())["content"]["content_id"] == content_id


LATIN = {
    "upload": ("POST", "/v1/contents?content_id=caf%E9"),
    "delete": ("DELETE", "/v1/contents/caf%E9"),
    "read": ("GET", "/v1/contents/caf%E9"),
    "search": ("GET", "/v1/search?q=caf%E9"),
    "surrogate": ("GET", "/v1/search?q=%ED%A0%80"),
}


@pytest.mark.parametrize(("method", "path"), LATIN.values(), ids=LATIN)
async def test_an_address_in_another_encoding_is_refused(writable: Client, method: str, path: str) -> None:
    """caf%E9 and caf%E8 would be one content, caf�."""
    response = await writable.request(method, URL(path, encoded=True), data="words")
    assert await error_of(response) == (400, "bad_request")


async def test_head_of_the_stream_ends(client: Client) -> None:
    assert client.app is not None
    response = await asyncio.wait_for(client.head("/v1/live"), PATIENCE_SECONDS)
    assert response.status == 200
    assert client.app[LIVE_STREAMS].num_open == 0
