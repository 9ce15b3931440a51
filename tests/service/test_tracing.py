"""Which variables turn traces on, which are refused, and what a record's headers say of its trace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.environment import BadSettings
from service.tracing import RecordHeaders, Sending, open_tracer, sampled_context
from tests.fixtures.otlp import collecting

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NO_COLLECTOR = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)


def header(value: bytes) -> RecordHeaders:
    return (("content-type", b"application/json"), ("traceparent", value))


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        pytest.param({}, "cliptide-tests", id="our own name"),
        pytest.param({"OTEL_SERVICE_NAME": "shop"}, "shop", id="OTEL_SERVICE_NAME"),
        pytest.param({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop,a=b"}, "shop", id="resource"),
    ],
)
def test_the_standard_variables_say_where_traces_go_and_whose_they_are(
    variables: dict[str, str], service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with open_tracer("cliptide-tests") as tracer:
            assert tracer is not None
            tracer.start_span("work").end()
    assert [(span.name, span.service) for span in collector.spans] == [("work", service)]
    assert collector.headers[0]["api-key"] == "secret"


def test_the_sampler_is_the_one_that_the_standard_variables_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.endpoint}/v1/traces")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
        with open_tracer("cliptide-tests") as tracer:
            assert tracer is not None
            sending = Sending(tracer, "uploads")
            sending.delivered(0, 1)
    assert collector.spans == []
    assert sampled_context(sending.headers) is None
    [carried] = [value for name, value in sending.headers if name == "traceparent"]
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[02]", carried or b"")


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, id="nothing is set"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, id="a blank address"),
        pytest.param(
            {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": NO_COLLECTOR}, id="disabled"
        ),
        pytest.param(
            {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": NO_COLLECTOR}, id="no exporter"
        ),
    ],
)
def test_nothing_is_traced_unless_a_variable_names_a_collector(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with open_tracer("cliptide-tests") as tracer:
        assert tracer is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://collector:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/ca.pem"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_in_one_line(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NO_COLLECTOR)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=rf"^{name}: [^\n]+$"):
        open_tracer("cliptide-tests").__enter__()


@pytest.mark.parametrize("service", ["consumer", "query_api"])
def test_a_service_that_cannot_send_its_traces_does_not_start(service: str) -> None:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}
    command = [sys.executable, "-m", service]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    message = "OTEL_EXPORTER_OTLP_ENDPOINT: must begin with http:// or https://"
    assert done.stderr.splitlines()[-1].startswith(f"{service}: {message}")
    assert "loading the encoder" not in done.stderr


def test_a_collector_that_is_away_neither_raises_nor_holds_up_the_end_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.tracing._CLOSE_SECONDS", 0.05)
    began = time.monotonic()
    with open_tracer("cliptide-tests", f"{NO_COLLECTOR}/v1/traces") as tracer:
        assert tracer is not None
        tracer.start_span("work").end()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(f"00-{TRACE}-{SPAN}-00".encode(), id="not sampled"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 55, id="no text"),
        pytest.param(b"0" * 53 + b"01", id="no parts"),
        pytest.param(f"00-{'0' * 32}-{SPAN}-01".encode(), id="no trace"),
        pytest.param(f"ff-{TRACE}-{SPAN}-01".encode(), id="a forbidden version"),
        pytest.param(f"00-{TRACE}-{SPAN}".encode(), id="no flags"),
    ],
)
def test_a_record_is_traced_only_if_its_header_is_well_formed_and_sampled(value: bytes) -> None:
    assert sampled_context(header(value)) is None


def test_of_several_headers_the_last_one_counts() -> None:
    sampled, other = f"00-{TRACE}-{SPAN}-01".encode(), f"00-{TRACE}-{SPAN}-00".encode()
    assert sampled_context((*header(other), *header(sampled))) is not None
    assert sampled_context((*header(sampled), *header(other))) is None
    assert sampled_context((("traceparent", None),)) is None


def test_a_certificate_that_is_there_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.write_text("")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(certificate))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NO_COLLECTOR)
    with open_tracer("cliptide-tests") as tracer:
        assert tracer is not None
