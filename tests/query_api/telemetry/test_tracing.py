"""Where a request's time went, told to whoever collects traces, and in the log when it was much."""

from __future__ import annotations

import asyncio
import http.server
import threading
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from fakes.hash_encoder import HashEncoder
from query_api.app import AppSettings, build_app
from query_api.http import observation
from query_api.telemetry.stages import Stages
from query_api.telemetry.tracing import RequestTrace
from service.tracing import open_tracer
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


async def trace_search(
    small_index: SmallIndex, headers: dict[str, str]
) -> tuple[tuple[ReadableSpan, ...], str]:
    """Search once; return the spans in the order in which they ended, and the `Server-Timing`."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    reader = small_index.open_reader()
    reader.reload()
    app = build_app(
        HashEncoder(), reader, CollectorRegistry(), AppSettings(), tracer=provider.get_tracer("test")
    )
    async with TestClient(TestServer(app)) as client:
        response = await client.post("/v1/search", json={"text": "red"}, headers=headers)
    return exporter.get_finished_spans(), response.headers["Server-Timing"]


async def test_a_request_is_a_span_with_its_stages_inside(small_index: SmallIndex) -> None:
    spans, _ = await trace_search(small_index, {"traceparent": f"00-{TRACE}-{CALLER}-01"})
    *inner, whole = spans
    stages = [span for span in inner if span.name != "search shard"]
    assert whole.name == "POST /v1/search"
    assert whole.attributes is not None
    assert whole.attributes["http.response.status_code"] == 200
    assert whole.parent is not None
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert f"{whole.parent.span_id:016x}" == CALLER
    assert {"read", "encode", "search", "columns"} <= {stage.name for stage in stages}
    for stage in stages:
        assert stage.parent is not None
        assert stage.parent.span_id == whole.context.span_id
        assert whole.start_time <= stage.start_time <= stage.end_time <= whole.end_time  # type: ignore[operator]


async def test_a_search_has_a_span_for_each_shard_and_modality_inside(small_index: SmallIndex) -> None:
    spans, server_timing = await trace_search(small_index, {})
    [search] = [span for span in spans if span.name == "search"]
    shards = [span for span in spans if span.name == "search shard"]
    assert {(s.attributes["cliptide.shard"], s.attributes["cliptide.modality"]) for s in shards} == {  # type: ignore[index]
        (f"content-uploads-{partition}", modality) for partition in (0, 1) for modality in ("text", "image")
    }
    assert len(shards) == 4
    for shard in shards:
        assert shard.parent is not None
        assert shard.parent.span_id == search.context.span_id
        assert search.start_time <= shard.start_time <= shard.end_time <= search.end_time  # type: ignore[operator]
    assert "shard" not in server_timing


def test_without_a_tracer_nobody_observes_the_shards(small_index: SmallIndex) -> None:
    reader = small_index.open_reader()
    reader.reload()
    assert reader.searcher is not None
    assert reader.searcher.observed_by(Stages().search_observer) is reader.searcher


async def test_only_a_health_check_that_fails_is_a_span(small_index: SmallIndex) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    reader = small_index.open_reader()  # without a searcher, so it is not ready
    registry, tracer = CollectorRegistry(), provider.get_tracer("test")
    app = build_app(HashEncoder(), reader, registry, AppSettings(reload_interval_seconds=60), tracer=tracer)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/livez")).status == 200
        reader.searcher = None
        assert (await client.get("/readyz")).status == 503
    assert [span.name for span in exporter.get_finished_spans()] == ["GET /readyz"]


async def test_a_slow_request_is_logged_with_its_stages(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client: TestClient[Any, Any] = await start_service(small_index, slow_seconds=0.0)
    with capture_logs() as logs:
        await client.get("/v1/search", params={"q": "a secret wish"})
    [told] = [entry for entry in logs if entry["event"] == "slow request"]
    assert (told["route"], told["status"]) == ("/v1/search", 200)
    assert {"encode_ms", "search_ms"} <= told["stages"].keys()
    assert "secret" not in str(logs)


class SteppedClock:
    """Stands still until it is moved. `asked` is set when somebody has read it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.asked = asyncio.Event()

    def __call__(self) -> float:
        self.asked.set()
        return self.seconds


@pytest.mark.parametrize(("limit", "is_refused"), [(16 * 2**20, False), (10, True)], ids=["whole", "refused"])
async def test_a_request_whose_body_arrives_slowly_is_no_slow_request(
    small_index: SmallIndex,
    start_service: StartService,
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    is_refused: bool,
) -> None:
    client: TestClient[Any, Any] = await start_service(small_index, slow_seconds=50.0, max_body_bytes=limit)
    clock = SteppedClock()
    monkeypatch.setattr(observation, "Stages", partial(Stages, clock))

    async def body() -> AsyncIterator[bytes]:
        yield b'{"text":'
        await clock.asked.wait()  # the service waits for the rest
        clock.seconds += 100.0
        yield b'"a red dress"}'

    with capture_logs() as logs:
        response = await client.post("/v1/search", data=body(), headers={"Content-Type": "application/json"})
        assert (response.status != 200) is is_refused
    assert "slow request" not in {entry["event"] for entry in logs}


def test_spans_are_sent_to_the_endpoint_before_the_end() -> None:
    bodies: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is logged."""

    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with open_tracer("tests", f"http://127.0.0.1:{server.server_address[1]}/v1/traces") as tracer:
            assert tracer is not None
            RequestTrace(tracer, Stages(), method="GET", route="/v1/index", headers={}).end(200)
        server.shutdown()
        thread.join()
    assert any(b"GET /v1/index" in body for body in bodies)


def test_without_an_endpoint_nothing_is_traced() -> None:
    with open_tracer("tests") as tracer:
        assert tracer is None
