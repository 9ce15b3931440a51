"""The traces that begin with a published event, if a variable of OpenTelemetry names a collector."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass

import click
from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from event_log.records import Delivery, Headers
from service.environment import BadSettings
from service.tracing import TRACEPARENT, Sending, context_from_text, open_tracer

SERVICE = "cliptide-publish"


@dataclass(frozen=True, slots=True)
class EventTracing:
    """Makes a span for each published event. Without a parent, each event begins a trace of its own."""

    tracer: Tracer
    parent: Context

    def begin(self, topic: str) -> SendingEvent:
        return SendingEvent(Sending(self.tracer, topic, self.parent))


@dataclass(frozen=True, slots=True)
class SendingEvent:
    """An event on its way to the log. `headers` go into its record."""

    span: Sending

    @property
    def headers(self) -> Headers:
        return self.span.headers

    def end(self, delivery: Future[Delivery]) -> None:
        """End the span as the delivery ended."""
        error = delivery.exception()
        if error is not None:
            self.span.failed(error)
        else:
            self.span.delivered(delivery.result().partition, delivery.result().offset)


@contextmanager
def open_event_tracing() -> Iterator[EventTracing | None]:
    """Yield what traces events, or None if no variable names a collector.

    The variable TRACEPARENT names the span that all events of this run belong to.
    """
    try:
        with open_tracer(SERVICE) as tracer:
            parent = context_from_text({TRACEPARENT: os.environ.get("TRACEPARENT", "")})
            yield None if tracer is None else EventTracing(tracer, parent)
    except BadSettings as error:
        raise click.UsageError(str(error)) from error
