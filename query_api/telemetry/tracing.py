"""Requests and their stages as OpenTelemetry spans. No other module makes spans.

Spans are made when a request is over, from the times in `Stages`. So requests that are not
traced cost nothing, and worker threads need no tracing context. The stage of a search has one
span below it for each shard and modality.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from aiohttp import web
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from query_api.telemetry.stages import Interval, Stages

SERVICE = "cliptide-query-api"
_PROPAGATOR = TraceContextTextMapPropagator()

TRACER: web.AppKey[Tracer | None] = web.AppKey("tracer")


def record_request(
    tracer: Tracer, stages: Stages, *, method: str, route: str, status: int, headers: Mapping[str, str]
) -> None:
    """Record a finished request. If the caller sent a `traceparent`, its span is the parent."""
    parent = _PROPAGATOR.extract({name.lower(): value for name, value in headers.items()})
    now, now_ns = stages.now(), time.time_ns()

    def nanoseconds(moment: float) -> int:
        return now_ns - int((now - moment) * 1e9)

    span = tracer.start_span(
        f"{method} {route}",
        context=parent,
        kind=SpanKind.SERVER,
        start_time=nanoseconds(stages.began),
        attributes={
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
        },
    )
    _record_below(tracer, span, stages.intervals, nanoseconds)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
    span.end(now_ns)


def _record_below(
    tracer: Tracer, parent: Span, intervals: Iterable[Interval], nanoseconds: Callable[[float], int]
) -> None:
    context = set_span_in_context(parent)
    for interval in intervals:
        span = tracer.start_span(
            interval.name,
            context=context,
            start_time=nanoseconds(interval.began),
            attributes=dict(interval.attributes),
        )
        _record_below(tracer, span, interval.inside, nanoseconds)
        span.end(nanoseconds(interval.ended))


@contextmanager
def open_tracer(endpoint: str | None) -> Iterator[Tracer | None]:
    """Yield a tracer that sends spans to an OTLP endpoint over HTTP; yield None if there is no endpoint.

    At the end, the spans that are still waiting are sent.
    """
    if endpoint is None:
        yield None
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    try:
        yield provider.get_tracer("query_api")
    finally:
        provider.shutdown()
