"""Every status that the document gives a route is real: each route is made to answer each of them.

That nothing undocumented is answered is shown in `test_fuzz`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry

from event_log.memory.clients import MemoryLog, MemoryPublisher
from fakes.hash_encoder import HashEncoder, draw_picture
from query_api.app import AppSettings, build_app
from query_api.contract.document.openapi import error_codes, status_of
from query_api.contract.route import JSON, Route
from query_api.errors import STATUSES
from query_api.http.connections.connection import ConnectionLimits
from query_api.http.connections.listener import Address, listening
from query_api.http.guards.api_keys import ApiKeys, digest_of
from query_api.http.guards.rate_limit import RateLimit
from query_api.route_table import ROUTES
from query_api.swap.index_swap import INDEX_SWAP
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
PAIRS = [
    (route, status)
    for route in ROUTES
    for status in sorted({*route.answers, *map(status_of, error_codes(route))})
]
ADMIN = frozenset({digest_of("administers")})
KEYS = ApiKeys(frozenset({digest_of("reads")}), frozenset({digest_of("writes")}), ADMIN)
ADMIN_KEY = {"api-key": "administers"}
PUBLISHES = (
    "POST /v1/contents",
    "POST /v1/contents/batch",
    "POST /v1/contents/delete",
    "DELETE /v1/contents/{content_id}",
    "PATCH /v1/contents/{content_id}",
    "POST /mv_retrieval/v0.1/add_content",
)
NUM_COVERED = 3  # records of the shard that the small index begins with


@dataclass(frozen=True, slots=True)
class Call:
    """A request to a route: its place in the path, its query string, its body."""

    place: str = "x"
    query: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    data: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    has_key: bool = True  # an admin key, where the route needs one


def picture_form(name: str, data: bytes) -> Callable[[], FormData]:
    def build() -> FormData:
        form = FormData(default_to_multipart=True)
        form.add_field(name, data, filename="f.png", content_type="image/png")
        return form

    return build


BY_TEXT = Call(query={"text_query": "red"})
BY_PICTURE = Call(data=picture_form("image_file", draw_picture(1)))
UPLOAD = {"content_id": "t-red", "content": {"text": "a red hat"}}
SUCCESSES = {
    "POST /v1/search": Call(json={"text": "red"}),
    "GET /v1/search": Call(query={"q": "red"}),
    "POST /v1/search/batch": Call(json={"queries": [{"text": "red"}]}),
    "POST /v1/recommend": Call(json={"positive": [{"text": "red"}]}),
    "GET /v1/contents/{content_id}": Call("t-red"),
    "POST /v1/embed": Call(json={"contents": [{"text": "red"}]}),
    "POST /v1/contents": Call(json=UPLOAD),
    "POST /v1/contents/batch": Call(json={"contents": [UPLOAD]}),
    "POST /v1/contents/delete": Call(
        json={"filter": {"must": [{"field": "content_id", "equals": "t-red"}]}, "dry_run": False}
    ),
    "DELETE /v1/contents/{content_id}": Call("nobody"),
    "PATCH /v1/contents/{content_id}": Call("t-red", json={"title": "hat"}),
    "POST /mv_retrieval/v0.1/add_content": Call(query={"id": "1", "type": "text"}, data=b"a red hat"),
    "POST /mv_retrieval/v0.1/retrieve_contents": Call(query={"type": "text"}, data=b"a red hat"),
    "POST /text_url": BY_TEXT,
    "POST /display_text": BY_TEXT,
    "POST /image_url": BY_PICTURE,
    "POST /display_image": BY_PICTURE,
    "GET /docs/{asset}": Call("start.js"),
    "GET /page/{file}": Call("page.js"),
    "POST /v1/browse": Call(json={}),
    "POST /v1/counts": Call(json={}),
    "POST /v1/facets": Call(json={}),
    "GET /v1/contents/{content_id}/thumbnail": Call("p-small"),
}
OF_NO_KIND = Call(data=b"words", headers={"Content-Type": "application/x-nothing"})
NO_PICTURE = Call(query={"type": "image", "id": "1"}, data=b"words")
REFUSALS = {
    (404, "POST /v1/search"): Call(json={"content_id": "nobody"}),
    (404, "POST /v1/search/batch"): Call(json={"queries": [{"content_id": "nobody"}]}),
    (404, "GET /v1/search"): Call(query={"content_id": "nobody"}),
    (404, "POST /v1/recommend"): Call(json={"positive": [{"content_id": "nobody"}]}),
    (415, "POST /mv_retrieval/v0.1/add_content"): NO_PICTURE,
    (415, "POST /mv_retrieval/v0.1/retrieve_contents"): Call(query={"type": "image"}, data=b"words"),
    (422, "POST /image_url"): Call(data=picture_form("picture", draw_picture(1))),
    (422, "POST /display_image"): Call(data=picture_form("picture", draw_picture(1))),
    (422, "POST /mv_retrieval/v0.1/recommend_contents"): Call(query={"k": "-1"}),
    (422, "POST /v1/search"): Call(json={"nothing": 1}),
    (422, "POST /v1/search/batch"): Call(json={"nothing": 1}),
    (422, "POST /v1/contents/batch"): Call(json={"nothing": 1}),
    (422, "POST /v1/contents/delete"): Call(json={"nothing": 1}),
    (404, "PATCH /v1/contents/{content_id}"): Call("nobody", {"wait": "searchable"}, {"title": "hat"}),
    (422, "PATCH /v1/contents/{content_id}"): Call(json={"nothing": 1}),
    (422, "GET /v1/indexes/{index_id}"): Call("a" * 600),
    (422, "POST /v1/contents"): Call(json={"nothing": 1}),
    (422, "POST /v1/embed"): Call(json={"nothing": 1}),
    (422, "POST /v1/recommend"): Call(json={"nothing": 1}),
    (422, "POST /v1/browse"): Call(json={"nothing": 1}),
    (422, "POST /v1/counts"): Call(json={"nothing": 1}),
    (404, "POST /v1/facets"): Call(json={"content_id": "nobody"}),
    (422, "POST /v1/facets"): Call(json={"nothing": 1}),
}


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def id_of(value: Route | int) -> str:
    return name_of(value) if isinstance(value, Route) else str(value)


def path_of(route: Route, place: str = "x") -> str:
    return "/".join(place if part.startswith("{") else part for part in route.path.split("/"))


@dataclass(frozen=True, slots=True)
class Stage:
    """What the makers of statuses work with."""

    index: SmallIndex
    start: StartService
    nothing: Path

    async def service(self, **settings: Any) -> Client:
        """A service that takes uploads; three records are in its log, and covered by its index."""
        log = MemoryLog()
        log.create_topic(TOPIC, 1)
        settings = {"keys": ApiKeys(admin=ADMIN), **settings}
        return await self.start(self.index, publisher=MemoryPublisher(log), max_wait_seconds=0.05, **settings)

    async def publish(self, client: Client, number: int) -> None:
        for one in range(number):
            response = await client.post("/v1/contents", json={**UPLOAD, "content_id": f"other-{one}"})
            assert response.status == 202


async def send(client: Client, route: Route, call: Call) -> int:
    data = call.data() if callable(call.data) else call.data
    path = path_of(route, call.place)
    headers = {**(ADMIN_KEY if route.access == "admin" and call.has_key else {}), **call.headers}
    request = client.request(
        route.method, path, params=call.query, json=call.json, data=data, headers=headers
    )
    async with request as response:
        if response.status >= 400:
            code = (await response.json())["error"]["code"]
            assert code in error_codes(route)
        return response.status


async def succeed(stage: Stage, route: Route) -> int:
    """A write is awaited until it is searchable, a picture has a thumbnail."""
    stage.index.commit(0, stage.index.text("text:1", "a red hat"))
    stage.index.commit(1, stage.index.image("p-small", draw_picture(9), thumbnail=b"RIFF"))
    client = await stage.service()
    call = SUCCESSES.get(name_of(route), Call())
    if name_of(route) in PUBLISHES:
        await stage.publish(client, NUM_COVERED if "mv" in route.path else 0)
        query = {} if "mv" in route.path else {"wait": "searchable"}
        call = Call(call.place, {**call.query, **query}, call.json, call.data)
    return await send(client, route, call)


async def accept(stage: Stage, route: Route) -> int:
    return await send(await stage.service(), route, SUCCESSES[name_of(route)])


async def malform(stage: Stage, route: Route) -> int:
    return await answer_raw(stage, f"{route.method} {path_of(route)} HTTP/1.1\r\nHost x\r\n\r\n")


async def have_no_key(stage: Stage, route: Route) -> int:
    return await send(await stage.service(keys=KEYS), route, Call(has_key=False))


async def have_the_wrong_key(stage: Stage, route: Route) -> int:
    if route.access == "open":  # it needs no key, but a name of this service
        return await send(await stage.service(), route, Call(headers={"Host": "evil.example"}))
    wrong = "writes" if route.access == "read" else "reads"
    return await send(await stage.service(keys=KEYS), route, Call(headers={"api-key": wrong}))


async def refuse(stage: Stage, route: Route, status: int) -> int:
    usual = {404: Call("nobody"), 415: OF_NO_KIND, 422: Call(query={"nothing": "1"})}
    return await send(await stage.service(), route, REFUSALS.get((status, name_of(route)), usual[status]))


async def be_slow(stage: Stage, route: Route) -> int:
    head = f"Host: localhost\r\nContent-Type: {JSON}\r\nContent-Length: 10\r\n\r\n"
    return await answer_raw(stage, f"{route.method} {path_of(route)} HTTP/1.1\r\n{head}")


async def be_superseded(stage: Stage, route: Route) -> int:
    """The index has version 7 of the content, and covers the event's offset."""
    stage.index.commit(0, stage.index.text("another", "a blue hat"))
    client = await stage.service()
    query = {"wait": "searchable"}
    if route.method == "PATCH":  # it has no version: the upload that the index has lies behind it
        return await send(client, route, Call("t-blue", query, {"title": "hat"}))
    await stage.publish(client, NUM_COVERED)
    if route.method == "DELETE":
        return await send(client, route, Call("t-blue", {**query, "version": "6"}))
    return await send(client, route, Call("x", query, {**UPLOAD, "content_id": "t-blue", "version": 6}))


async def outlive_a_generation(stage: Stage, route: Route) -> int:
    stage.index.commit(0, *(stage.index.text(f"r-{n}", f"red {n}") for n in range(5)))
    asked = await (await stage.service()).post("/v1/search", json={"text": "red", "k": 2, "paged": True})
    answer = await asked.json()
    stage.index.commit(0, stage.index.text("new", "red"))
    generation = answer["snapshot"][f"{TOPIC}-0"]["generation"]
    [manifest] = stage.index.root.rglob(f"{TOPIC}-0/manifest-{generation:020d}.json")
    manifest.unlink()
    return await send(await stage.service(), route, Call(json={"cursor": answer["next_cursor"]}))


async def be_too_large(stage: Stage, route: Route) -> int:
    headers = {"Content-Type": JSON} if route.method == "PATCH" else {}
    service = await stage.service(max_body_bytes=1024)
    return await send(service, route, Call(data=b" " * 2000, headers=headers))


async def come_too_often(stage: Stage, route: Route) -> int:
    client = await stage.service(rate_limit=RateLimit(per_second=0.001, burst=1))
    await client.get("/livez")
    return await send(client, route, Call())


async def have_long_headers(stage: Stage, route: Route) -> int:
    return await answer_raw(
        stage, f"{route.method} {path_of(route)} HTTP/1.1\r\nHost: localhost\r\nX-Long: {'a' * 9000}\r\n\r\n"
    )


async def be_unavailable(stage: Stage, route: Route) -> int:
    """Guarded routes have too much to do; readiness and the stream have no index; a loop has ended."""
    if route.is_endless or route.path == "/readyz":
        return await send(await stage.start(SmallIndex(stage.nothing)), route, Call())
    client = await stage.service(max_concurrent_requests=0)
    if route.path == "/livez":
        assert client.app is not None
        task = client.app[INDEX_SWAP].pair.index._task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
    return await send(client, route, Call())


async def be_late(stage: Stage, route: Route) -> int:
    """The event lies behind all that the index covers."""
    client = await stage.service()
    await stage.publish(client, NUM_COVERED + 1)
    call = SUCCESSES[name_of(route)]
    query = {} if "mv" in route.path else {"wait": "searchable", "timeout_ms": "10"}
    return await send(client, route, Call(call.place, {**call.query, **query}, call.json, call.data))


Maker: TypeAlias = Callable[[Stage, Route], Awaitable[int]]
MAKERS: Mapping[int, Maker] = {
    200: succeed,
    202: accept,
    400: malform,
    401: have_no_key,
    403: have_the_wrong_key,
    404: lambda stage, route: refuse(stage, route, 404),
    408: be_slow,
    409: be_superseded,
    410: outlive_a_generation,
    413: be_too_large,
    415: lambda stage, route: refuse(stage, route, 415),
    422: lambda stage, route: refuse(stage, route, 422),
    429: come_too_often,
    431: have_long_headers,
    503: be_unavailable,
    504: be_late,
}


async def answer_raw(stage: Stage, text: str) -> int:
    """Send what no client sends to a service with short deadlines; return the status."""
    reader = stage.index.open_reader()
    reader.reload()
    app = build_app(HashEncoder(), reader, CollectorRegistry(), AppSettings(receive_timeout_seconds=0.05))
    limits = ConnectionLimits(lingering_seconds=0.05)
    async with listening(app, Address("127.0.0.1", 0), limits, shutdown_seconds=1.0) as place:
        host, _, port = place.rpartition(":")
        socket_reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(text.encode("latin-1"))
        head = await asyncio.wait_for(socket_reader.readuntil(b"\r\n\r\n"), PATIENCE_SECONDS)
        writer.close()
    return int(head.split()[1])


@pytest.mark.parametrize(("route", "status"), PAIRS, ids=id_of)
async def test_every_documented_status_is_answered(
    small_index: SmallIndex, start_service: StartService, tmp_path: Path, route: Route, status: int
) -> None:
    stage = Stage(small_index, start_service, tmp_path / "nothing")
    assert await MAKERS[status](stage, route) == status


def test_every_status_is_documented_but_those_that_no_route_means_to_answer() -> None:
    documented = {status_of(code) for route in ROUTES for code in error_codes(route)}
    assert set(STATUSES.values()) - documented == {405, 500}
