"""Asks the collector of traces, if one is named."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cliptide.doctor.findings import Finding, failed, ok
from cliptide.terminal.waiting import waiting_told
from service.tracing import is_tracing_wanted, traces_address, traces_headers

_CHECK = "traces"
_NO_SPANS = b""
"""A message of protobuf without a field: an export request without spans."""
_SECONDS = 10.0
_REFUSED = (401, 403)


def check_traces(endpoint: str | None) -> Iterator[Finding]:
    """Send the collector a request without spans. Without a collector nothing is said.

    `endpoint` is the address that our own variable names.
    """
    if not is_tracing_wanted(endpoint):
        return
    address = traces_address(endpoint)
    headers = {**traces_headers(), "Content-Type": "application/x-protobuf"}
    try:
        with waiting_told(f"the collector of traces at {address}"):
            urlopen(Request(address, _NO_SPANS, headers), timeout=_SECONDS).close()
    except HTTPError as error:
        yield failed(_CHECK, f"{address} answers {error.code}", _remedy(error.code))
    except (OSError, ValueError) as error:
        remedy = "start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT"
        yield failed(_CHECK, f"{address} does not answer: {getattr(error, 'reason', error)}", remedy)
    else:
        yield ok(_CHECK, f"{address} takes traces")


def _remedy(status: int) -> str:
    if status in _REFUSED:
        return "correct OTEL_EXPORTER_OTLP_HEADERS"
    return "correct OTEL_EXPORTER_OTLP_ENDPOINT: OTLP over HTTP, which collectors take on port 4318"
