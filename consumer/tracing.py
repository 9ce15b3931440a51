"""The traces of sampled records, from the producer's span to the commit. Other records cost a look.

Spans are made when a record is committed, from the times that its stages have noted. So no thread
carries a tracing context, and a record that is not committed leaves no span behind.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)

from event_log.records import Record
from service.tracing import MESSAGING_SYSTEM, TRACEPARENT, sampled_context, text_from_context

SERVICE = "cliptide-consumer"
TracedStage: TypeAlias = Literal["poll", "fetch", "prepare", "encode", "commit"]
RecordStatus: TypeAlias = Literal["indexed", "patched", "removed", "dead_letter", "passed_over"]


@dataclass(frozen=True, slots=True)
class RecordTracing:
    """Begins the traces of sampled records. `group_id` is the consumer group that the spans name."""

    tracer: Tracer
    group_id: str

    def begin(self, record: Record) -> RecordTrace | None:
        """Return the trace of a record that has just been polled; None if its producer did not sample it."""
        parent = sampled_context(record.headers)
        if parent is None:
            return None
        trace = RecordTrace(self, record, parent, time.time_ns())
        trace.add("poll", trace.began_ns, time.time_ns())
        return trace

    def attributes(self, topic: str, operation: str) -> dict[str, str | int]:
        return {
            **MESSAGING_SYSTEM,
            "messaging.destination.name": topic,
            "messaging.consumer.group.name": self.group_id,
            "messaging.operation.name": operation,
            "messaging.operation.type": "process",
        }


@dataclass(frozen=True, slots=True)
class _StageSpan:
    """A stage of a record, and the span of the batch in which it was passed, if there was one."""

    name: TracedStage
    began_ns: int
    ended_ns: int
    batch: SpanContext | None = None


class RecordTrace:
    """The times of one sampled record. Like its task, it belongs to one thread at a time."""

    __slots__ = (
        "_parent",
        "_stages",
        "_tracing",
        "began_ns",
        "commit_began_ns",
        "offset",
        "partition",
        "topic",
    )

    def __init__(self, tracing: RecordTracing, record: Record, parent: Context, polled_ns: int) -> None:
        """The trace begins at the record's timestamp, unless that is missing or in the future."""
        self._tracing = tracing
        self._parent = parent
        self._stages: list[_StageSpan] = []
        self.topic, self.partition, self.offset = record.topic, record.partition, record.offset
        timestamp_ns = record.timestamp_ms * 1_000_000
        self.began_ns = timestamp_ns if 0 < timestamp_ns <= polled_ns else polled_ns
        self.commit_began_ns: int | None = None

    @property
    def traceparent(self) -> str:
        """The producer's span, as a header names it."""
        return text_from_context(self._parent)[TRACEPARENT]

    @property
    def producer(self) -> SpanContext:
        return get_current_span(self._parent).get_span_context()

    @property
    def tracing(self) -> RecordTracing:
        return self._tracing

    def add(self, stage: TracedStage, began_ns: int, ended_ns: int, batch: SpanContext | None = None) -> None:
        self._stages.append(_StageSpan(stage, began_ns, ended_ns, batch))

    def committed(self, outcome: RecordOutcome) -> None:
        """Make the span of the record and those of its stages. A commit has made its outcome durable."""
        now_ns = time.time_ns()
        self.add("commit", self.commit_began_ns or now_ns, now_ns)
        span = self._start_span(outcome)
        context = set_span_in_context(span)
        for stage in self._stages:
            links = [Link(stage.batch)] if stage.batch is not None else None
            part = self._tracing.tracer.start_span(
                stage.name, context=context, start_time=stage.began_ns, links=links
            )
            part.end(stage.ended_ns)
        span.end(now_ns)

    def _start_span(self, outcome: RecordOutcome) -> Span:
        span = self._tracing.tracer.start_span(
            f"index {self.topic}",
            context=self._parent,
            kind=SpanKind.CONSUMER,
            start_time=self.began_ns,
            attributes={
                **self._tracing.attributes(self.topic, "index"),
                "messaging.destination.partition.id": str(self.partition),
                "messaging.kafka.offset": self.offset,
                "cliptide.status": outcome.status,
                **outcome.attributes,
            },
        )
        if outcome.status == "dead_letter":
            span.set_status(Status(StatusCode.ERROR, outcome.reason))
        return span


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """What became of a traced record. `reason` is why it is a dead letter."""

    status: RecordStatus
    reason: str | None = None
    attributes: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TracedOutcome:
    """A traced record on its way to the writer, and what has become of it."""

    trace: RecordTrace
    outcome: RecordOutcome


def trace_batch(
    traces: Sequence[RecordTrace], *, num_records: int, began_ns: int, ended_ns: int
) -> SpanContext:
    """Make the span of a batch, linked to the producers of its sampled records; return its context."""
    first = traces[0]
    span = first.tracing.tracer.start_span(
        f"process {first.topic}",
        context=Context(),
        kind=SpanKind.CONSUMER,
        links=[Link(trace.producer) for trace in traces],
        start_time=began_ns,
        attributes={
            **first.tracing.attributes(first.topic, "process"),
            "messaging.batch.message_count": num_records,
        },
    )
    span.end(ended_ns)
    return span.get_span_context()
