"""The doctor says what is wrong, and what to set."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.encoder.settings import EncoderSettings
from cliptide.__main__ import main
from cliptide.doctor import disk_checks, kafka_checks
from cliptide.doctor.command import print_finding
from cliptide.doctor.disk_checks import check_disk, check_index
from cliptide.doctor.encoder_checks import check_devices, check_encoder
from cliptide.doctor.findings import Finding
from cliptide.doctor.kafka_checks import check_kafka, topic_problems
from cliptide.doctor.registry_checks import check_registry
from cliptide.doctor.settings_checks import check_settings, read_consumer_settings, read_query_settings
from consumer.settings import IndexSettings, KafkaSection, Settings
from fakes.shards import create_index
from tests.cliptide.stub_query_service import StubQueryService, refusal
from tests.cliptide.untrained_model import write_untrained_model
from tests.fixtures.otlp import collecting
from tests.fixtures.refusing_brokers import sasl_broker, web_server
from tests.fixtures.registries import ToldRegistry

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_checks, "REQUEST_TIMEOUT_SECONDS", 0.5)


def doctor(tmp_path: Path, *flags: str, **variables: str) -> Result:
    environment = {
        "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "CLIPTIDE_QUERY_URL": NOBODY,
        "CLIPTIDE_INDEX__ROOT": str(tmp_path / "index"),
        **variables,
    }
    return CliRunner(env=environment).invoke(main, ["doctor", "--without-model", *flags])


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def found(result: Result, check: str) -> dict[str, Any]:
    return next(line for line in lines(result) if line.get("check") == check)


def test_silence_after_a_protocol_was_set_may_be_a_port_of_another_protocol(tmp_path: Path) -> None:
    properties = json.dumps({"security.protocol": "SSL"})
    remedy = found(doctor(tmp_path, "--json", CLIPTIDE_KAFKA__PROPERTIES=properties), "kafka")["remedy"]
    assert remedy.endswith("correct security.protocol in CLIPTIDE_KAFKA__PROPERTIES, if that port is not SSL")
    assert "security.protocol" not in found(doctor(tmp_path, "--json"), "kafka")["remedy"]


def settings(**sections: Any) -> Settings:
    return Settings(**sections)


def test_what_fails_is_named_with_what_to_set_and_the_exit_code_is_1(tmp_path: Path) -> None:
    result = doctor(tmp_path, "--json")
    assert result.exit_code == 1
    assert found(result, "kafka")["status"] == "failed"
    assert "Connection refused" in found(result, "kafka")["message"]
    assert "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS" in found(result, "kafka")["remedy"]
    assert found(result, "topics")["status"] == "skipped"
    assert found(result, "disk")["status"] in ("ok", "warning")
    assert found(result, "query service")["status"] == "warning"
    assert lines(result)[-1]["failed"] == 1
    assert lines(result)[-1]["good"] is False


BAD_SETTINGS = {
    "misspelt": ("CLIPTIDE_TOPIK", "x", "CLIPTIDE_TOPIC"),
    "out_of_range": ("CLIPTIDE_CONSUMER__BATCH_MAX_ROWS", "0", "CLIPTIDE_CONSUMER__BATCH_MAX_ROWS"),
    "fixed_property": ("CLIPTIDE_KAFKA__PROPERTIES", '{"acks": "0"}', "acks cannot be set"),
    "not_json": ("CLIPTIDE_KAFKA__PROPERTIES", "sasl", "CLIPTIDE_KAFKA__PROPERTIES: must be JSON"),
}


@pytest.mark.parametrize(
    ("answer", "status", "remedy"),
    [
        ((200, {"compatibilityLevel": "NONE"}), "ok", None),
        ((401, {"error_code": 401, "message": "no"}), "failed", "CLIPTIDE_SCHEMA_REGISTRY__USER"),
        ((404, {}), "failed", "CLIPTIDE_SCHEMA_REGISTRY__URL"),
        ((500, {}), "failed", "start the registry"),
    ],
    ids=["ok", "401", "no registry", "broken"],
)
def test_a_schema_registry_is_asked_as_a_consumer_asks_it(
    told_registry: ToldRegistry, answer: tuple[int, object], status: str, remedy: str | None
) -> None:
    told_registry.answers["*"] = answer
    [finding] = check_registry(settings(schema_registry={"url": told_registry.url}))
    assert (finding.check, finding.status) == ("registry", status)
    assert remedy is None or remedy in (finding.remedy or "")


def test_without_a_schema_registry_nothing_is_said_of_one() -> None:
    assert list(check_registry(settings())) == []


@pytest.mark.parametrize(("variable", "value", "words"), BAD_SETTINGS.values(), ids=BAD_SETTINGS.keys())
def test_a_setting_that_stops_the_consumer_is_named(
    tmp_path: Path, variable: str, value: str, words: str
) -> None:
    result = doctor(tmp_path, "--json", **{variable: value})
    assert result.exit_code == 1
    assert found(result, "settings")["status"] == "failed"
    assert words in found(result, "settings")["message"]
    assert found(result, "kafka")["status"] == "skipped"


def test_a_setting_that_stops_only_the_query_service_is_named(tmp_path: Path) -> None:
    result = doctor(tmp_path, "--json", CLIPTIDE_QUERY_API__PORT="-1")
    failures = [line["message"] for line in lines(result) if line.get("check") == "settings"]
    assert "the consumer's settings can be used" in failures
    assert any("the query service cannot start: CLIPTIDE_QUERY_API__PORT" in one for one in failures)


def kafka_findings(address: str, **properties: str) -> list[Finding]:
    return list(check_kafka(settings(kafka=KafkaSection(bootstrap_servers=address, properties=properties))))


def test_the_authentication_error_is_told_as_the_broker_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_checks, "REQUEST_TIMEOUT_SECONDS", 30.0)
    credentials = {"sasl.mechanism": "PLAIN", "sasl.username": "us", "sasl.password": "hush"}
    with sasl_broker() as address:
        [kafka, topics] = kafka_findings(address, **{"security.protocol": "SASL_PLAINTEXT"}, **credentials)
    assert (kafka.status, topics.status) == ("failed", "skipped")
    assert "wrong password" in kafka.message
    assert "sasl.*" in (kafka.remedy or "")
    assert "hush" not in str(kafka)


def test_an_address_of_another_protocol_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_checks, "REQUEST_TIMEOUT_SECONDS", 30.0)
    with web_server() as address:
        [kafka, _] = kafka_findings(address)
    assert kafka.status == "failed"


def test_a_property_that_librdkafka_does_not_know_is_named() -> None:
    [kafka, _] = kafka_findings("127.0.0.1:1", **{"sasl.pasword": "x"})
    assert kafka.status == "failed"
    assert "sasl.pasword" in kafka.message


TOPIC_SETTINGS = {
    "small_records": ({"max.message.bytes": "1048588"}, ["larger uploads are refused"]),
    "retention": ({"retention.ms": "604800000", "cleanup.policy": "delete"}, ["retention.ms is 604,800,000"]),
    "size": ({"retention.ms": "-1", "retention.bytes": "1000"}, ["retention.bytes is 1,000"]),
    "compacted": ({"cleanup.policy": "compact", "retention.ms": "604800000"}, ["the topic is compacted"]),
    "both": (
        {"cleanup.policy": "compact,delete", "retention.ms": "1"},
        ["is compacted", "retention.ms is 1"],
    ),
    "good": ({"retention.ms": "-1", "retention.bytes": "-1", "max.message.bytes": "11534336"}, []),
}


@pytest.mark.parametrize(("found_settings", "problems"), TOPIC_SETTINGS.values(), ids=TOPIC_SETTINGS.keys())
def test_settings_of_the_topic_that_lose_uploads_are_warnings(
    found_settings: dict[str, str], problems: list[str]
) -> None:
    findings = topic_problems("topic", found_settings)
    assert len(findings) == len(problems)
    for finding, words in zip(findings, problems, strict=True):
        assert (finding.status, words in finding.message) == ("warning", True)
        assert finding.remedy


def test_dead_letters_may_be_removed_after_a_while() -> None:
    assert topic_problems("dead letters", {"retention.ms": "1000"}) == []


def index_settings(root: Path, **changes: Any) -> Settings:
    return settings(index=IndexSettings(root=root), **changes)


def test_a_root_that_cannot_be_written_is_a_failure_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    [finding] = check_disk(index_settings(tmp_path / "file" / "index"))
    assert finding.status == "failed"
    assert "CLIPTIDE_INDEX__ROOT" in (finding.remedy or "")


def test_a_disk_with_little_room_is_a_warning_and_nothing_is_left_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_checks, "MIN_FREE_SHARE", 1.0)
    [finding] = check_disk(index_settings(tmp_path / "deep" / "index"))
    assert finding.status == "warning"
    assert list(tmp_path.iterdir()) == []


def test_the_index_is_compared_with_the_settings(tmp_path: Path) -> None:
    [missing] = check_index(index_settings(tmp_path))
    assert (missing.status, "a consumer creates it" in missing.message) == ("ok", True)
    topic = create_index(tmp_path).description.topic
    [good] = check_index(index_settings(tmp_path, topic=topic))
    assert good.status == "ok"
    [other] = check_index(index_settings(tmp_path, topic="elsewhere"))
    assert (other.status, "elsewhere" in other.message) == ("failed", True)
    (tmp_path / "indexes/main/index.json").write_text("{")
    [damaged] = check_index(index_settings(tmp_path, topic=topic))
    assert damaged.status == "failed"


def test_an_id_that_no_index_can_have_is_a_failure_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ID", "../main")
    for finding in check_settings(read_consumer_settings(), read_query_settings()):
        assert finding.status == "failed"
        assert "CLIPTIDE_INDEX__ID" in finding.message


ANSWERS: dict[str, tuple[int, Any, str]] = {
    "serving": (200, {"shards": {}}, "ok"),
    "key_needed": (401, refusal("key_required"), "failed"),
    "starting": (503, refusal("no_index"), "warning"),
    "somebody_else": (200, b"<html>", "failed"),
}


@pytest.mark.parametrize(("status", "body", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
def test_the_query_service_is_asked(tmp_path: Path, status: int, body: Any, expected: str) -> None:
    with StubQueryService({"GET /v1/index": (status, body)}).serving() as service:
        result = doctor(tmp_path, "--json", CLIPTIDE_QUERY_URL=service.url)
    assert found(result, "query service")["status"] == expected


@pytest.mark.parametrize("width", [80, 60])
def test_a_finding_fits_a_narrow_terminal_and_shows_what_to_do(width: int) -> None:
    output = io.StringIO()
    finding = Finding("query service", "failed", "no answer from " + "x" * 100, "set CLIPTIDE_QUERY_URL")
    print_finding(Console(file=output, width=width), finding)
    shown = output.getvalue()
    assert max(len(line) for line in shown.splitlines()) <= width
    assert "→ set CLIPTIDE_QUERY_URL" in shown
    assert shown.count("x") == 100


def test_without_json_the_findings_are_text_and_the_last_line_is_the_summary(tmp_path: Path) -> None:
    result = doctor(tmp_path)
    assert result.stdout.startswith("ok       settings")
    assert json.loads(result.stdout.splitlines()[-1])["failed"] == 1


@pytest.mark.encoder
def test_a_model_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    [finding] = check_encoder(settings(encoder=EncoderSettings(model=str(tmp_path))))
    assert finding.status == "failed"
    assert "CLIPTIDE_ENCODER__MODEL" in (finding.remedy or "")


@pytest.mark.encoder
def test_the_model_is_tried_and_compared_with_the_one_that_built_the_index(tmp_path: Path) -> None:
    encoder = EncoderSettings(model=str(write_untrained_model(tmp_path / "model")))
    root = tmp_path / "root"
    [model, nothing] = check_encoder(index_settings(root, encoder=encoder))
    assert (model.status, nothing.status) == ("ok", "skipped")
    create_index(root)
    [_, other] = check_encoder(index_settings(root, encoder=encoder))
    assert (other.status, "was built by another model" in other.message) == ("failed", True)
    create_index(tmp_path / "same", fingerprint=fingerprint_of(encoder))
    [_, same] = check_encoder(index_settings(tmp_path / "same", encoder=encoder))
    assert same.status == "ok"
    [device] = check_devices(encoder)
    assert "the encoder runs on the processor" in device.message


def fingerprint_of(encoder: EncoderSettings) -> EncoderFingerprint:
    from clip_index.encoder.open_clip import load_encoder  # takes seconds

    return load_encoder(encoder).fingerprint


@pytest.mark.encoder
def test_weights_that_have_to_be_fetched_are_named_and_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_index.encoder.open_clip import Download  # takes seconds

    download = Download("https://hub/weights", 605 * 2**20)
    monkeypatch.setattr("clip_index.encoder.open_clip.find_download", lambda _: download)
    [finding] = check_encoder(settings())
    assert finding.status == "warning"
    assert "the first start fetches https://hub/weights (605 MiB)" in finding.message


def test_a_store_of_contents_is_written_to_and_read_as_the_consumer_reads(tmp_path: Path) -> None:
    directory = tmp_path / "pictures"
    variables = {
        "CLIPTIDE_QUERY_API__CONTENTS_STORE": f"file://{directory}",
        "CLIPTIDE_CONSUMER__REFERENCE_FILE_ROOTS": json.dumps([str(directory)]),
    }
    result = doctor(tmp_path, "--json", **variables)
    findings = [line for line in lines(result) if line.get("check") == "contents"]
    assert [(line["status"], line["remedy"]) for line in findings] == [("ok", None)] * 2
    assert "takes contents" in findings[0]["message"]
    assert "may fetch what is stored, and can" in findings[1]["message"]


def test_a_store_that_the_consumer_does_not_allow_is_named_with_the_variable_that_allows_it(
    tmp_path: Path,
) -> None:
    store = f"file://{tmp_path / 'pictures'}"
    result = doctor(tmp_path, "--json", CLIPTIDE_QUERY_API__CONTENTS_STORE=store)
    _, finding = (line for line in lines(result) if line.get("check") == "contents")
    assert finding["status"] == "failed"
    assert "would not fetch" in finding["message"]
    assert "CLIPTIDE_CONSUMER__REFERENCE_BUCKETS" in finding["remedy"]


def test_a_store_that_takes_no_contents_is_named(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("not a directory")
    store = f"file://{tmp_path / 'pictures'}"
    finding = found(doctor(tmp_path, "--json", CLIPTIDE_QUERY_API__CONTENTS_STORE=store), "contents")
    assert finding["status"] == "failed"
    assert f"{store} takes no contents" in finding["message"]
    assert "CLIPTIDE_QUERY_API__CONTENTS_STORE" in finding["remedy"]


def test_a_collector_of_traces_is_asked(tmp_path: Path) -> None:
    with collecting() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=secret",
        }
        finding = found(doctor(tmp_path, "--json", **variables), "traces")
        assert (finding["status"], collector.spans) == ("ok", [])
        assert collector.headers[0]["x-api-key"] == "secret"
        assert "secret" not in json.dumps(finding)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "OTEL_EXPORTER_OTLP_HEADERS"),
        (404, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (None, "start the collector"),
    ],
)
def test_a_collector_that_refuses_or_does_not_answer_is_named_with_what_to_set(
    tmp_path: Path, status: int | None, remedy: str
) -> None:
    with refusing(status or 503) as server:
        address = "http://127.0.0.1:1" if status is None else server
        finding = found(doctor(tmp_path, "--json", OTEL_EXPORTER_OTLP_ENDPOINT=address), "traces")
    assert finding["status"] == "failed"
    assert f"{address}/v1/traces" in finding["message"]
    assert remedy in finding["remedy"]


@contextmanager
def refusing(status: int) -> Iterator[str]:
    """Run a server that answers every request with this status; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(status)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_without_a_store_and_a_collector_nothing_is_said_of_them(tmp_path: Path) -> None:
    checks = {line.get("check") for line in lines(doctor(tmp_path, "--json"))}
    assert not checks & {"contents", "traces"}
