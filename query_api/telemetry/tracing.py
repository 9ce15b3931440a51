"""Requests and their stages as OpenTelemetry spans, and the records that become searchable.

The spans of a request are made when it is over, from the times in `Stages`. So requests that are not
traced cost nothing, and worker threads need no tracing context. Only a request that publishes a record
begins its span earlier, because the record carries the span's id. The stage of a search has one span
below it for each shard and modality.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from aiohttp import web
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from event_log.records import Delivery, Headers
from query_api.telemetry.stages import Interval, Stages
from service.tracing import (
    TRACEPARENT,
    Sending,
    context_from_text,
    headers_from_text,
    text_from_context,
)

SERVICE = "cliptide-query-api"

TRACER: web.AppKey[Tracer | None] = web.AppKey("tracer")


class RequestTrace:
    """The trace of one request. If the caller sent a `traceparent`, its span is the parent.

    Without a tracer no span is made, and a record that the request publishes carries the caller's context.
    """

    __slots__ = ("_headers", "_method", "_route", "_span", "_stages", "_tracer")

    def __init__(
        self, tracer: Tracer | None, stages: Stages, *, method: str, route: str, headers: Mapping[str, str]
    ) -> None:
        self._tracer = tracer
        self._stages = stages
        self._method = method
        self._route = route
        self._headers = headers
        self._span: Span | None = None

    @contextmanager
    def sending(self, topic: str) -> Iterator[SendingRecord]:
        """Span the publishing of one record. Whatever is raised inside ends the span as an error."""
        record = self.begin_sending(topic)
        try:
            yield record
        except BaseException as error:
            record.failed(error)
            raise

    def end(self, status: int) -> None:
        """The request is over: make its spans."""
        if self._tracer is None:
            return
        span, now_ns = self._started(self._tracer), time.time_ns()
        span.set_attribute("http.response.status_code", status)
        _record_below(self._tracer, span, self._stages.intervals, self._nanoseconds)
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(now_ns)

    def begin_sending(self, topic: str) -> SendingRecord:
        """Begin the span of one record, which ends when the caller says what became of the record."""
        if self._tracer is None:
            carried = text_from_context(context_from_text(self._lower_headers()))
            return SendingRecord(headers_from_text(carried))
        span = Sending(self._tracer, topic, set_span_in_context(self._started(self._tracer)))
        return SendingRecord(span.headers, span)

    def _started(self, tracer: Tracer) -> Span:
        if self._span is None:
            self._span = tracer.start_span(
                f"{self._method} {self._route}",
                context=context_from_text(self._lower_headers()),
                kind=SpanKind.SERVER,
                start_time=self._nanoseconds(self._stages.began),
                attributes={"http.request.method": self._method, "http.route": self._route},
            )
        return self._span

    def _lower_headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self._headers.items()}

    def _nanoseconds(self, moment: float) -> int:
        """A moment of the stages' clock, as nanoseconds since 1970."""
        return time.time_ns() - int((self._stages.now() - moment) * 1e9)


TRACE = web.RequestKey("trace", RequestTrace)


@dataclass(frozen=True, slots=True)
class SendingRecord:
    """A record that a request publishes. `headers` go into the record."""

    headers: Headers
    span: Sending | None = None

    def delivered(self, delivery: Delivery) -> None:
        if self.span is not None:
            self.span.delivered(delivery.partition, delivery.offset)

    def failed(self, error: BaseException) -> None:
        if self.span is not None:
            self.span.failed(error)


@dataclass(frozen=True, slots=True)
class SearchableRecord:
    """A sampled record, its producer's span, when its commit began, and the generation that is served."""

    shard: str
    offset: int
    traceparent: str
    commit_ms: int
    generation: int


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


def record_searchable(tracer: Tracer, record: SearchableRecord) -> None:
    """Make the span of a record that this process serves from now on. It begins when its commit began."""
    now_ns = time.time_ns()
    span = tracer.start_span(
        "searchable",
        context=context_from_text({TRACEPARENT: record.traceparent}),
        start_time=min(record.commit_ms * 1_000_000, now_ns),
        attributes={
            "cliptide.shard": record.shard,
            "cliptide.generation": record.generation,
            "messaging.kafka.offset": record.offset,
        },
    )
    span.end(now_ns)
