"""One trace follows an upload from its request, or its command, to the query that finds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from cliptide.publishing.event_tracing import open_event_tracing
from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import EventPublisher, label_event
from consumer.tracing import SERVICE as CONSUMER
from event_log.memory.clients import MemoryPublisher
from query_api.telemetry.tracing import SERVICE as QUERY_API
from schemas.events import ContentReference, TextContent
from service.tracing import open_tracer
from tests.consumer.running import TOPIC, World, eventually, upload
from tests.fixtures.otlp import Collector, ReceivedSpan, collecting
from tests.integration.pipeline import build_service

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{CALLER}-00"}
SERVER, PRODUCER, CONSUMING = 2, 4, 5


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield collector


@asynccontextmanager
async def traced_pipeline(root: Path) -> AsyncIterator[tuple[World, TestClient[Any, Any]]]:
    """A consumer and a query service, each with a tracer of its own. At the end all spans are sent."""
    with open_tracer(CONSUMER) as of_consumer, open_tracer(QUERY_API) as of_service:
        world = World(root, tracer=of_consumer)
        with world.running():
            app = build_service(world, tracer=of_service, reload_interval_seconds=0.01)
            async with TestClient(TestServer(app)) as client:
                yield world, client


def only(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    [span] = [span for span in spans if span.name == name]
    return span


async def test_one_trace_holds_an_upload_its_way_into_the_index_and_the_query_that_finds_it(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_pipeline(tmp_path) as (_, client):
        uploaded = await client.post(
            "/v1/contents?wait=searchable",
            json={"content_id": "hat", "content": {"text": "a red hat"}},
            headers=SAMPLED,
        )
        assert uploaded.status == 200
        found = await client.get("/v1/search", params={"q": "a red hat"}, headers=SAMPLED)
        assert "hat" in await found.text()
        await asyncio.to_thread(eventually, lambda: bool(collector.named("searchable")))
    spans = collector.of_trace(TRACE)
    request, query = only(spans, "POST /v1/contents"), only(spans, "GET /v1/search")
    sent, indexed = only(spans, f"send {TOPIC}"), only(spans, f"index {TOPIC}")
    searchable = only(spans, "searchable")
    assert [request.parent_id, query.parent_id] == [CALLER] * 2
    assert sent.parent_id == request.span_id
    assert [indexed.parent_id, searchable.parent_id] == [sent.span_id] * 2
    assert [request.kind, sent.kind, indexed.kind] == [SERVER, PRODUCER, CONSUMING]
    assert {span.service for span in spans} == {CONSUMER, QUERY_API}
    stages = [span for span in spans if span.parent_id == indexed.span_id]
    assert [stage.name for stage in sorted(stages, key=lambda span: span.began_ns)] == [
        "poll",
        "prepare",
        "encode",
        "commit",
    ]
    assert all(indexed.began_ns <= stage.began_ns <= stage.ended_ns <= indexed.ended_ns for stage in stages)
    assert only(stages, "commit").began_ns // 10**6 * 10**6 == searchable.began_ns <= searchable.ended_ns
    for span in (sent, indexed, searchable):
        assert span.attributes["messaging.kafka.offset"] == 0
    [batch] = collector.named(f"process {TOPIC}")
    assert batch.links == ((TRACE, sent.span_id),)
    assert batch.trace_id != TRACE
    assert only(stages, "encode").links == ((batch.trace_id, batch.span_id),)


async def test_an_upload_of_the_command_line_begins_a_trace_that_ends_searchable(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_pipeline(tmp_path) as (world, _):
        with open_event_tracing() as tracing:
            sender = EventPublisher(MemoryPublisher(world.log), TOPIC, pacer=Pacer(None), tracing=tracing)
            list(sender.publish([label_event(name, upload(name)) for name in ("one", "two")]))
        await asyncio.to_thread(eventually, lambda: len(collector.named("searchable")) == 2)
    sent = collector.named(f"send {TOPIC}")
    assert {span.service for span in sent} == {"cliptide-publish"}
    assert len({span.trace_id for span in sent}) == 2
    assert {span.parent_id for span in collector.named("searchable")} == {span.span_id for span in sent}
    assert {span.parent_id for span in collector.named(f"index {TOPIC}")} == {span.span_id for span in sent}


async def test_all_uploads_of_a_run_belong_to_the_span_that_traceparent_names(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEPARENT", SAMPLED["traceparent"])
    world = World(tmp_path)
    with open_event_tracing() as tracing:
        sender = EventPublisher(MemoryPublisher(world.log), TOPIC, pacer=Pacer(None), tracing=tracing)
        list(sender.publish([label_event(name, upload(name)) for name in ("one", "two")]))
    assert [span.parent_id for span in collector.of_trace(TRACE)] == [CALLER] * 2


async def test_a_dead_letter_is_an_error_in_its_trace_and_keeps_the_header(
    tmp_path: Path, collector: Collector
) -> None:
    header = ("traceparent", SAMPLED["traceparent"].encode())
    async with traced_pipeline(tmp_path) as (world, _):
        world.log.append(TOPIC, 0, key=b"bad", value=b"?", headers=(header,))
        await asyncio.to_thread(eventually, lambda: bool(collector.named(f"index {TOPIC}")))
    [letter] = world.dead_letters()
    assert header in letter.headers
    indexed = only(collector.of_trace(TRACE), f"index {TOPIC}")
    assert indexed.is_error
    assert indexed.attributes["cliptide.status"] == "dead_letter"
    assert collector.named("searchable") == []


async def test_a_delete_ends_searchable_too(tmp_path: Path, collector: Collector) -> None:
    async with traced_pipeline(tmp_path) as (_, client):
        await client.post("/v1/contents?wait=searchable", json={"content_id": "x", "content": {"text": "x"}})
        answer = await client.delete("/v1/contents/x?wait=searchable", headers=SAMPLED)
        assert answer.status == 200
        await asyncio.to_thread(eventually, lambda: len(collector.named("searchable")) == 2)
    indexed = only(collector.of_trace(TRACE), f"index {TOPIC}")
    assert indexed.attributes["cliptide.status"] == "removed"
    assert only(collector.of_trace(TRACE), "searchable").attributes["messaging.kafka.offset"] == 1


async def test_a_fetched_reference_is_a_stage_of_its_record(tmp_path: Path, collector: Collector) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a referenced text")
    event = upload("far", ContentReference(file.as_uri(), None, None, "text"))
    async with traced_pipeline(tmp_path / "index") as (world, _):
        with open_event_tracing() as tracing:
            sender = EventPublisher(MemoryPublisher(world.log), TOPIC, pacer=Pacer(None), tracing=tracing)
            list(sender.publish([label_event("far", event)]))
        await asyncio.to_thread(eventually, lambda: bool(collector.named(f"index {TOPIC}")))
    assert collector.named(f"index {TOPIC}")[0].attributes["cliptide.status"] == "dead_letter"
    assert len(collector.named("fetch")) == 1


async def test_a_record_that_is_not_sampled_leaves_no_span_in_the_consumer(
    tmp_path: Path, collector: Collector
) -> None:
    async with traced_pipeline(tmp_path) as (world, client):
        upload_one = {"content_id": "hat", "content": {"text": "a red hat"}}
        await client.post("/v1/contents?wait=searchable", json=upload_one, headers=NOT_SAMPLED)
        world.publish(upload("plain", TextContent("plain")))
        [record] = world.log.partition(TOPIC, 0).records[:1]
    [header] = [value for name, value in record.headers if name == "traceparent"]
    assert header is not None
    assert header.startswith(f"00-{TRACE}-".encode())
    assert not int(header[-2:], 16) & 1
    assert [span for span in collector.spans if span.service == CONSUMER] == []


async def test_without_a_collector_the_context_of_the_caller_goes_into_the_record(tmp_path: Path) -> None:
    async with traced_pipeline(tmp_path) as (world, client):
        for headers in (SAMPLED, {"traceparent": "nonsense"}, {}):
            upload_one = {"content_id": "hat", "content": {"text": "a red hat"}}
            await client.post("/v1/contents", json=upload_one, headers=headers)
    records = world.log.partition(TOPIC, 0).records
    carried = [dict(record.headers).get("traceparent") for record in records]
    assert carried == [SAMPLED["traceparent"].encode(), None, None]
