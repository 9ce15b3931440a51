"""Keys, rates and bounds: who is let in, how often, and what everybody else is told."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Prepared
from event_log.memory.clients import MemoryLog, MemoryPublisher
from fakes.hash_encoder import HashEncoder
from query_api.http.guards import rate_limit
from query_api.http.guards.api_keys import ApiKeys
from query_api.http.guards.rate_limit import RateLimit, TokenBuckets
from query_api.route_table import ROUTES
from query_api.serving.request_slots import REQUEST_SLOTS, RequestSlots
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.conftest import StartService, metrics_of
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
UPLOAD = {"content_id": "t-new", "content": {"text": "a red hat"}}
READ, WRITE, BOTH, UNKNOWN = "key that reads", "key that writes", "key that does both", "key of nobody"


def digests(*keys: str) -> list[str]:
    return [hashlib.sha256(key.encode()).hexdigest() for key in keys]


@pytest.fixture
async def client(small_index: SmallIndex, start_service: StartService) -> Client:
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    keys = ApiKeys.from_hex(digests(READ, BOTH), digests(WRITE, BOTH))
    return await start_service(small_index, publisher=MemoryPublisher(log), keys=keys)


KEYS = {
    "no key": (None, (401, "key_required"), (401, "key_required")),
    "an unknown key": (UNKNOWN, (401, "unknown_key"), (401, "unknown_key")),
    "a key that reads": (READ, (200, None), (403, "forbidden")),
    "a key that writes": (WRITE, (403, "forbidden"), (202, None)),
    "a key that does both": (BOTH, (200, None), (202, None)),
    "a key outside ASCII": ("schlüssel", (401, "unknown_key"), (401, "unknown_key")),
}


@pytest.mark.parametrize(("key", "reads", "writes"), KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("header", ["Authorization", "api-key"])
async def test_a_key_opens_what_it_is_for(
    client: Client, header: str, key: str | None, reads: Any, writes: Any
) -> None:
    value = f"Bearer {key}" if header == "Authorization" else str(key)
    headers = {} if key is None else {header: value}
    read = await client.get("/v1/search", params={"q": "red"}, headers=headers)
    written = await client.post("/v1/contents", json=UPLOAD, headers=headers)
    for response, (status, code) in ((read, reads), (written, writes)):
        answer = await response.json()
        assert (response.status, answer.get("error", {}).get("code")) == (status, code)
        assert ("WWW-Authenticate" in response.headers) == (status == 401)


async def test_health_is_open_and_unknown_paths_are_not_told_apart(client: Client) -> None:
    assert (await client.get("/livez")).status == 200
    assert (await client.get("/readyz")).status == 200
    assert (await client.get("/no/such/path")).status == 404


async def test_a_key_is_checked_before_the_body_is_asked_for(client: Client) -> None:
    def ask(key: str) -> bytes:
        head = (
            f"POST /v1/search HTTP/1.1\r\nHost: [::]\r\napi-key: {key}\r\nContent-Type: application/json\r\n"
            "Content-Length: 15\r\nExpect: 100-continue\r\n\r\n"
        )
        place = (str(client.host), int(str(client.port)))
        with socket.create_connection(place, timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(head.encode())
            first = connection.recv(4096)
            if first.startswith(b"HTTP/1.1 100"):
                connection.sendall(b'{"text": "red"}')
                first += connection.recv(65536)
            return first

    assert (await asyncio.to_thread(ask, UNKNOWN)).startswith(b"HTTP/1.1 401")
    assert b"\r\n\r\nHTTP/1.1 200" in await asyncio.to_thread(ask, READ)


async def test_a_caller_beyond_its_rate_is_told_when_to_come_back(
    small_index: SmallIndex, start_service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "TokenBuckets", partial(TokenBuckets, clock=lambda: 0.0))
    keys = ApiKeys.from_hex(digests(READ, BOTH), [])
    limit = RateLimit(per_second=0.5, burst=2)
    client = await start_service(small_index, keys=keys, rate_limit=limit)
    answers = [await client.get("/v1/index", headers={"api-key": READ}) for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[-1].headers["Retry-After"] == "2"
    assert (await client.get("/v1/index", headers={"api-key": BOTH})).status == 200  # a bucket of its own


def test_a_bucket_fills_again_and_never_above_its_burst() -> None:
    now = 100.0
    buckets = TokenBuckets(RateLimit(per_second=2.0, burst=3), clock=lambda: now)
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    now += 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0.0, 0.5]
    now += 3600
    assert [buckets.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_only_the_callers_seen_last_are_remembered() -> None:
    buckets = TokenBuckets(RateLimit(per_second=1.0, burst=1), clock=lambda: 0.0)
    buckets.take("first")
    for number in range(10_000):
        buckets.take(str(number))
    assert len(buckets._buckets) == 10_000
    assert buckets.take("first") == 0.0  # forgotten, so its bucket is full


class HeldEncoder(HashEncoder):
    """Encodes when it is let."""

    gate = threading.Event()

    def encode(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        assert self.gate.wait(PATIENCE_SECONDS)
        return super().encode(prepared)


def build_held_encoder() -> HeldEncoder:
    """An encoder with a gate of its own."""

    class OwnEncoder(HeldEncoder):
        gate = threading.Event()

    return OwnEncoder()


async def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def slots_of(client: TestClient[Any, Any]) -> RequestSlots:
    assert client.app is not None
    return client.app[REQUEST_SLOTS]


async def test_too_much_work_at_once_is_a_503_but_health_is_still_told(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(
        small_index, encoder=HeldEncoder(), max_concurrent_requests=1, queue_seconds=0
    )
    working = asyncio.create_task(client.post("/v1/search", json={"text": "red"}))
    while (refused := await client.get("/v1/index")).status == 200:  # noqa: ASYNC110 (until it is encoded)
        await asyncio.sleep(0.01)
    assert (refused.status, (await refused.json())["error"]["code"]) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    assert (await client.get("/livez")).status == 200
    HeldEncoder.gate.set()
    assert (await working).status == 200
    assert (await client.get("/v1/index")).status == 200


async def test_a_request_queues_while_others_are_worked_on_and_says_for_how_long(
    small_index: SmallIndex, start_service: StartService
) -> None:
    encoder = build_held_encoder()
    client = await start_service(small_index, encoder=encoder, max_concurrent_requests=1)
    working = asyncio.create_task(client.post("/v1/search", json={"text": "red"}))
    await until(lambda: slots_of(client).num_working == 1)
    queued = asyncio.create_task(client.get("/v1/index"))
    await until(lambda: slots_of(client).num_queued == 1)
    encoder.gate.set()
    assert (await working).status == (await queued).status == 200
    assert "queue" not in (await working).headers["Server-Timing"]
    assert "queue;dur=" in (await queued).headers["Server-Timing"]
    assert 'cliptide_query_stage_seconds_count{stage="queue"} 1.0' in metrics_of(client)


async def test_a_request_that_queues_too_long_is_a_503_and_one_whose_client_left_is_not_worked_on(
    small_index: SmallIndex, start_service: StartService
) -> None:
    encoder = build_held_encoder()
    client = await start_service(small_index, encoder=encoder, max_concurrent_requests=1, queue_seconds=0.3)
    working = asyncio.create_task(client.post("/v1/search", json={"text": "red"}))
    await until(lambda: slots_of(client).num_working == 1)
    refused = await client.get("/v1/index")
    assert (refused.status, (await refused.json())["error"]["code"]) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    slots_of(client)._queue_seconds = PATIENCE_SECONDS
    leaving = asyncio.create_task(client.get("/v1/contents/t-red"))
    await until(lambda: slots_of(client).num_queued == 1)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await until(lambda: len(client.server.runner.server.connections) == 1)  # type: ignore[attr-defined]
    encoder.gate.set()
    assert (await working).status == 200
    await until(lambda: slots_of(client).num_working == slots_of(client).num_queued == 0)
    answered = 'route="/v1/contents/{content_id}",status="200"'
    assert answered not in metrics_of(client)


async def test_searches_that_wait_for_an_upload_keep_nobody_from_being_answered(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index, max_concurrent_requests=1)
    body = {"text": "red", "min_offsets": {f"{TOPIC}-0": 4}, "timeout_ms": 60_000}
    waiting = asyncio.create_task(client.post("/v1/search", json=body))
    assert client.app is not None
    while client.app[REQUEST_SLOTS].num_waiting == 0:  # noqa: ASYNC110 (a client cannot be told)
        await asyncio.sleep(0.01)
    assert (await client.get("/v1/index")).status == 200
    refused = await client.post("/v1/search", json=body)  # as many may wait as may work
    assert (refused.status, (await refused.json())["error"]["code"]) == (503, "overloaded")
    assert refused.headers["Retry-After"] == "1"
    assert not waiting.done()
    small_index.commit(0, small_index.text("t-new", "a red hat"))
    assert (await waiting).status == 200


ORIGIN = "https://page.example"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}


async def test_without_settings_no_other_origin_may_read_an_answer(client: Client) -> None:
    response = await client.options("/v1/search", headers=PREFLIGHT)
    assert response.status == 405
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_a_page_of_a_configured_origin_may_call_and_no_other(
    small_index: SmallIndex, start_service: StartService
) -> None:
    keys = ApiKeys.from_hex(digests(READ), [])
    client = await start_service(small_index, cors_origins=frozenset({ORIGIN}), keys=keys)
    preflight = await client.options("/v1/search", headers=PREFLIGHT)
    assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, ORIGIN)
    assert "api-key" in preflight.headers["Access-Control-Allow-Headers"]
    allowed = preflight.headers["Access-Control-Allow-Methods"].split(", ")
    assert {route.method for route in ROUTES} == set(allowed)
    refused = await client.get("/v1/index", headers={"Origin": ORIGIN})
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (401, ORIGIN)
    other = await client.options("/v1/search", headers={**PREFLIGHT, "Origin": "https://other.example"})
    assert (other.status, other.headers.get("Access-Control-Allow-Origin")) == (405, None)


async def test_no_request_chooses_a_model_a_path_or_an_address(client: Client) -> None:
    headers = {"api-key": BOTH}
    for field in ("model", "path", "url", "index", "uri"):
        search = await client.post("/v1/search", json={"text": "a", field: "/etc/passwd"}, headers=headers)
        upload = await client.post("/v1/contents", json={**UPLOAD, field: "https://x.test"}, headers=headers)
        for response in (search, upload):
            assert (await response.json())["error"]["code"] == "unknown_field"


async def test_an_encoder_that_is_asked_by_a_refused_caller_hears_nothing(
    small_index: SmallIndex, start_service: StartService
) -> None:
    heard: list[Any] = []

    class ListeningEncoder(HashEncoder):
        def encode(self, prepared: Any) -> Any:
            heard.extend(prepared)
            return super().encode(prepared)

    keys = ApiKeys.from_hex(digests(READ), [])
    client = await start_service(small_index, encoder=ListeningEncoder(), keys=keys)
    assert (await client.post("/v1/search", json={"text": "red"})).status == 401
    assert heard == []


async def test_wrong_keys_are_limited_for_each_address_and_right_ones_are_let_in(client: Client) -> None:
    answers = [await client.get("/v1/index", headers={"api-key": f"guess {n}"}) for n in range(40)]
    statuses = [answer.status for answer in answers]
    assert statuses[:30] == [401] * 30
    assert statuses[-1] == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert (await client.get("/v1/index", headers={"api-key": READ})).status == 200


ANSWERS = ("/v1/index", "/v1/search?q=red", "/v1/contents/nobody", "/v1/live", "/readyz", "/no/such/path")


@pytest.mark.parametrize("path", ANSWERS)
async def test_no_answer_is_kept_by_a_cache_or_read_by_another_page(client: Client, path: str) -> None:
    async with client.get(path, headers={"api-key": READ}) as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert {"Authorization", "api-key"} <= set(response.headers.getall("Vary"))


async def test_requests_are_weighed_by_what_they_cost(
    small_index: SmallIndex, start_service: StartService
) -> None:
    dear = {
        "/v1/search": {"queries": [{"text": "red", "k": 1}] * 50},
        "/v1/recommend": {"owner_id": "ann"},
        "/v1/embed": {"contents": [{"text": "red"}] * 50},
    }
    for path, body in dear.items():
        service = await start_service(small_index, rate_limit=RateLimit(per_second=0.001, burst=20))
        for _ in range(3):
            assert (await service.post("/v1/search", json={"text": "red"})).status == 200
        assert (await service.post(path, json=body)).status == 200, path
        assert (await service.post("/v1/search", json={"text": "red"})).status == 429, path


def test_a_caller_owes_at_most_a_full_bucket() -> None:
    now = 0.0
    buckets = TokenBuckets(RateLimit(per_second=1.0, burst=10), clock=lambda: now)
    assert buckets.take("a") == 0.0
    buckets.charge("a", 1000.0)
    assert buckets.take("a") == 11.0
    now = 11.0
    assert buckets.take("a") == 0.0
