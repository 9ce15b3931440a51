"""Traces: the tracer of a process, and the trace context that a record carries in its headers.

The tracer is configured by OpenTelemetry's standard variables (`OTEL_EXPORTER_OTLP_ENDPOINT`,
`OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`, …). No span is made unless one of them names a collector.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers

from service.environment import BadSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

RecordHeaders: TypeAlias = tuple[tuple[str, bytes | None], ...]
TRACEPARENT = "traceparent"
MESSAGING_SYSTEM = {"messaging.system": "kafka"}
_CARRIED = (TRACEPARENT, "tracestate")
_PROPAGATOR = TraceContextTextMapPropagator()
_FLAGS_AT = slice(53, 55)  # of 00-<32 digits>-<16 digits>-<flags>
_CLOSE_SECONDS = 5.0  # for the last spans, so that a collector that is away does not hold up a stop

_TRACES, _OTLP = "OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"
_DEFAULT_COLLECTOR = "http://localhost:4318"
_SAMPLERS = ("always_on", "always_off", "traceidratio")
_NUMBERS = (
    f"{_OTLP}TIMEOUT",
    f"{_TRACES}TIMEOUT",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
)


def context_from_text(carried: Mapping[str, str]) -> Context:
    """Return the context that `traceparent` and `tracestate` name; an empty one if they name none."""
    return _PROPAGATOR.extract({name: carried[name] for name in _CARRIED if name in carried})


def text_from_context(context: Context) -> dict[str, str]:
    """Return the `traceparent`, and the `tracestate` if there is one, of the span in a context."""
    carried: dict[str, str] = {}
    _PROPAGATOR.inject(carried, context)
    return carried


def headers_from_text(carried: Mapping[str, str]) -> RecordHeaders:
    """Return the headers of a record that carry a context."""
    return tuple((name, text.encode()) for name, text in carried.items())


def sampled_context(headers: RecordHeaders) -> Context | None:
    """Return the context that a record's headers carry; None unless its trace is sampled.

    Of several headers of one name the last one counts, as in Kafka's own clients. Most records are not
    sampled, so nothing is parsed before the flag is known.
    """
    traceparent = tracestate = None
    for name, value in headers:
        if name == TRACEPARENT:
            traceparent = value
        elif name == "tracestate":
            tracestate = value
    if traceparent is None or not _is_sampled(traceparent):
        return None
    texts = {TRACEPARENT: traceparent.decode("ascii", "replace")}
    if tracestate is not None:
        texts["tracestate"] = tracestate.decode("ascii", "replace")
    context = _PROPAGATOR.extract(texts)
    return context or None  # empty for a header of another form


def _is_sampled(traceparent: bytes) -> bool:
    try:
        return bool(int(traceparent[_FLAGS_AT], 16) & 1)
    except ValueError:
        return False


class Sending:
    """A record on its way to the log, as a span of the kind producer. `headers` go into the record."""

    def __init__(self, tracer: Tracer, topic: str, parent: Context | None = None) -> None:
        self._span = tracer.start_span(
            f"send {topic}",
            context=parent,
            kind=SpanKind.PRODUCER,
            attributes={
                **MESSAGING_SYSTEM,
                "messaging.destination.name": topic,
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
            },
        )
        self.headers = headers_from_text(text_from_context(set_span_in_context(self._span)))

    def delivered(self, partition: int, offset: int) -> None:
        self._span.set_attribute("messaging.destination.partition.id", str(partition))
        self._span.set_attribute("messaging.kafka.offset", offset)
        self._span.end()

    def failed(self, error: BaseException) -> None:
        self._span.set_attribute("error.type", type(error).__name__)
        self._span.set_status(Status(StatusCode.ERROR, str(error)))
        self._span.end()


@contextmanager
def open_tracer(service: str, endpoint: str | None = None) -> Iterator[Tracer | None]:
    """Yield the tracer of this process; None unless a variable, or `endpoint`, names a collector.

    `service` is the name that traces show, unless a variable gives another one. Raises `BadSettings`. At
    the end, the spans that still wait are sent, for a few seconds at most.
    """
    if not is_tracing_wanted(endpoint):
        yield None
        return
    _refuse_unusable(endpoint)
    provider = _build_provider(service, endpoint)
    try:
        yield provider.get_tracer("cliptide")
    finally:
        closing = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


def is_tracing_wanted(endpoint: str | None = None) -> bool:
    """Whether a collector is named, and no variable turns traces off."""
    if _variable("OTEL_SDK_DISABLED").lower() == "true" or _exporter() == "none":
        return False
    return bool(endpoint or _endpoint()[1] or _exporter() == "otlp")


def traces_address(endpoint: str | None = None) -> str:
    """Return where spans are sent, as OpenTelemetry's exporter for HTTP composes it."""
    if endpoint or (endpoint := _variable(f"{_TRACES}ENDPOINT")):
        return endpoint
    return f"{(_variable(f'{_OTLP}ENDPOINT') or _DEFAULT_COLLECTOR).rstrip('/')}/v1/traces"


def traces_headers() -> dict[str, str]:
    """Return the headers that the collector wants, such as those with a key."""
    return dict(parse_env_headers(_first(f"{_TRACES}HEADERS", f"{_OTLP}HEADERS")[1], liberal=True))


def _build_provider(service: str, endpoint: str | None) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = _variable("OTEL_SERVICE_NAME") or "service.name=" in _variable("OTEL_RESOURCE_ATTRIBUTES")
    resource = Resource.create({} if named else {"service.name": service})
    try:
        processor = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint))
    except ValueError as error:
        raise BadSettings(f"OTEL_*: {error}") from error
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def _refuse_unusable(endpoint: str | None) -> None:
    """Refuse what the library would replace by a default, or would fail at with each batch of spans."""
    name, address = _endpoint()
    if not endpoint and address and not address.startswith(("http://", "https://")):
        raise BadSettings(f"{name}: must begin with http:// or https://, such as http://collector:4318")
    if _exporter() not in ("", "otlp"):
        raise BadSettings("OTEL_TRACES_EXPORTER: must be otlp or none")
    name, protocol = _first(f"{_TRACES}PROTOCOL", f"{_OTLP}PROTOCOL")
    if protocol not in ("", "http/protobuf"):
        raise BadSettings(
            f"{name}: traces are sent by http/protobuf only, which collectors take on port 4318: set "
            f"{_TRACES}PROTOCOL=http/protobuf and {_TRACES}ENDPOINT"
        )
    name, certificate = _first(f"{_TRACES}CERTIFICATE", f"{_OTLP}CERTIFICATE")
    if certificate and not Path(certificate).is_file():
        raise BadSettings(f"{name}: there is no file {certificate}")
    for number in _NUMBERS:
        _refuse_number(number, lambda value: value > 0, "must be a positive number")
    _refuse_sampler()


def _refuse_sampler() -> None:
    sampler = _variable("OTEL_TRACES_SAMPLER").lower()
    if sampler and sampler.removeprefix("parentbased_") not in _SAMPLERS:
        known = ", ".join((*_SAMPLERS, *(f"parentbased_{name}" for name in _SAMPLERS)))
        raise BadSettings(f"OTEL_TRACES_SAMPLER: must be one of {known}")
    if sampler.endswith("traceidratio"):
        share = "must be a share of all traces, from 0 to 1"
        _refuse_number("OTEL_TRACES_SAMPLER_ARG", lambda value: 0 <= value <= 1, share)


def _refuse_number(name: str, is_usable: Callable[[float], bool], message: str) -> None:
    text = _variable(name)
    if not text:
        return
    try:
        usable = is_usable(float(text))
    except ValueError:
        usable = False
    if not usable:
        raise BadSettings(f"{name}: {message}")


def _exporter() -> str:
    return _variable("OTEL_TRACES_EXPORTER").lower()


def _endpoint() -> tuple[str, str]:
    return _first(f"{_TRACES}ENDPOINT", f"{_OTLP}ENDPOINT")


def _first(*names: str) -> tuple[str, str]:
    """Return the first of these variables that is set, and its value; the last one's name if none is."""
    for name in names:
        if text := _variable(name):
            return name, text
    return names[-1], ""


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()
