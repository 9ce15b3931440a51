"""What the trace of a published event tells when it cannot be published, and when traces cannot be sent."""

from __future__ import annotations

import click
import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from cliptide.publishing.event_tracing import EventTracing, open_event_tracing
from cliptide.publishing.pacer import Pacer
from cliptide.publishing.publish import EventPublisher, Failed, Published, label_event
from event_log.errors import RecordTooLarge, TransientLogError
from event_log.memory.clients import MemoryLog, MemoryPublisher
from tests.consumer.running import upload


def test_variables_that_cannot_be_used_are_an_error_of_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "sometimes")
    with pytest.raises(click.UsageError, match="OTEL_TRACES_SAMPLER: must be one of"):
        open_event_tracing().__enter__()


@pytest.mark.parametrize("fault", [RecordTooLarge("too large"), TransientLogError("away")])
def test_an_event_that_is_not_published_is_an_error_in_its_trace(fault: Exception) -> None:
    log, exporter, provider = MemoryLog(), InMemorySpanExporter(), TracerProvider()
    log.create_topic("uploads", 1)
    log.fail_next("publish", fault)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = EventTracing(provider.get_tracer("test"), Context())
    sender = EventPublisher(MemoryPublisher(log), "uploads", pacer=Pacer(None), tracing=tracing)
    outcomes = list(sender.publish([label_event(name, upload(name)) for name in ("one", "two")]))
    assert [type(outcome) for outcome in outcomes] == [Failed, Published]
    failed, sent = exporter.get_finished_spans()
    assert (failed.status.status_code, sent.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == type(fault).__name__
