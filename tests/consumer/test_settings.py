"""The environment, read once; bad settings are one line that names the variable."""

from __future__ import annotations

import errno
import json
import os
import socket
from pathlib import Path

import pytest
from pydantic import BaseModel

import consumer.__main__ as program
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import (
    CommitUnknown,
    DamagedFile,
    EncoderMismatch,
    EncoderUnavailable,
    Fenced,
    IndexRefused,
)
from clip_index.storage import local_store
from consumer.__main__ import main, run
from consumer.backoff import Backoff
from consumer.errors import ConsumerFault, DeadLetterFlood, FencedWhileAssigned, StartRefused
from consumer.settings import (
    ConsumerSettings,
    IndexSettings,
    KafkaSection,
    SchemaRegistrySection,
    Settings,
    read_settings,
)
from consumer.starting import connections, waiting
from consumer.starting.options_from_settings import options_from_settings
from consumer.starting.refusals import exit_code_from
from event_log.errors import FatalLogError, TopicMissing
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.source import KafkaRecordSource
from event_log.records import TopicDescription
from fakes.hash_encoder import HashEncoder, draw_picture
from schemas.errors import UnknownSchema
from service.environment import BadSettings
from service.sections import OpenSearchSection
from tests.fixtures.refusing_brokers import sasl_broker
from tests.fixtures.registries import ToldRegistry


def test_the_defaults_need_no_variable() -> None:
    settings = read_settings()
    assert settings.topic == "content-uploads"
    assert settings.group_id == "cliptide-main"
    options = options_from_settings(settings)
    assert options.references.hosts == frozenset()
    assert options.preparation.make_thumbnail is None


def test_variables_reach_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ID", "shoes")
    monkeypatch.setenv("CLIPTIDE_KAFKA__PROPERTIES", '{"client.rack": "a", "linger.ms": 9}')
    monkeypatch.setenv("CLIPTIDE_CONSUMER__REFERENCE_HOSTS", '["CDN.example"]')
    monkeypatch.setenv("CLIPTIDE_CONSUMER__REFERENCE_FILE_ROOTS", '["/srv/uploads"]')
    monkeypatch.setenv("CLIPTIDE_CONSUMER__ON_UNKNOWN_SCHEMA", "dead_letter")
    monkeypatch.setenv("CLIPTIDE_CONSUMER__ACCEPT_REWIND", "true")
    monkeypatch.setenv("CLIPTIDE_CONSUMER__ERASE_WITHIN_SECONDS", "3600")
    settings = read_settings()
    options = options_from_settings(settings)
    assert settings.group_id == "cliptide-shoes"
    assert settings.kafka.connection().properties == {
        "fetch.wait.max.ms": 50,
        "client.rack": "a",
        "linger.ms": 9,
    }
    assert options.references.hosts == {"cdn.example"}
    assert options.references.file_roots == (Path("/srv/uploads"),)
    assert options.preparation.sets_unknown_schemas_aside
    assert options.start.accepts_rewind
    assert options.writer.merge.erase_within_seconds == 3600.0


def test_thumbnails_are_kept_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPTIDE_CONSUMER__THUMBNAIL_SIDE", "16")
    make_thumbnail = options_from_settings(read_settings()).preparation.make_thumbnail
    assert make_thumbnail is not None
    assert HashEncoder().prepare_image(make_thumbnail(draw_picture(1))).pixels.shape == (8, 8, 3)


@pytest.mark.parametrize(("is_shared", "seconds"), [(True, 60.0), (False, 5.0)])
def test_on_a_file_system_that_machines_share_replaced_files_are_kept_for_a_minute_at_least(
    monkeypatch: pytest.MonkeyPatch, is_shared: bool, seconds: float
) -> None:
    """A query service on another machine names what it has opened only every half a minute."""
    monkeypatch.setattr("consumer.starting.options_from_settings.is_shared", lambda _: is_shared)
    monkeypatch.setenv("CLIPTIDE_CONSUMER__RETAIN_FOR_SECONDS", "5")
    assert options_from_settings(read_settings()).writer.retain_for_seconds == seconds


def test_a_commit_to_opensearch_is_less_frequent_unless_an_interval_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert options_from_settings(read_settings()).commits.interval_seconds == 0.05
    monkeypatch.setenv("CLIPTIDE_INDEX__ENGINE", "opensearch")
    monkeypatch.setenv("CLIPTIDE_OPENSEARCH__URL", "http://127.0.0.1:9200")
    assert options_from_settings(read_settings()).commits.interval_seconds == 0.5
    monkeypatch.setenv("CLIPTIDE_CONSUMER__COMMIT_INTERVAL_SECONDS", "0.2")
    assert options_from_settings(read_settings()).commits.interval_seconds == 0.2


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "CLIPTIDE_OPENSEARCH__URL: CLIPTIDE_INDEX__ENGINE=opensearch needs it"),
        (
            {"URL": "https://search", "INDEX": "Main"},
            "CLIPTIDE_INDEX__ID: OpenSearch takes no capital letters",
        ),
        ({"URL": "search:9200"}, "CLIPTIDE_OPENSEARCH__URL: must begin with http:// or https://"),
        ({"URL": "http://"}, "CLIPTIDE_OPENSEARCH__URL: must begin with http:// or https://"),
        ({"URL": "http://a:9200,b:9200"}, "CLIPTIDE_OPENSEARCH__URL: must begin with http:// or https://"),
        ({"URL": "https://us:secret@search"}, "CLIPTIDE_OPENSEARCH__URL: may not hold a user"),
        (
            {"URL": "https://search", "USER": "us"},
            "CLIPTIDE_OPENSEARCH__USER: give CLIPTIDE_OPENSEARCH__PASS",
        ),
        ({"URL": "https://search", "CA_FILE": "/no/file"}, "CLIPTIDE_OPENSEARCH__CA_FILE: there is no file"),
        (
            {"URL": "https://search", "USER": "us", "PASSWORD": "right", "AWS_REGION": "eu-west-1"},
            "CLIPTIDE_OPENSEARCH__AWS_REGION: there is a user, too",
        ),
    ],
)
def test_opensearch_that_cannot_be_reached_as_set_is_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ENGINE", "opensearch")
    monkeypatch.setenv("CLIPTIDE_INDEX__ID", variables.get("INDEX", "main"))
    for name, value in ((name, value) for name, value in variables.items() if name != "INDEX"):
        monkeypatch.setenv(f"CLIPTIDE_OPENSEARCH__{name}", value)
    with pytest.raises(BadSettings) as refused:
        read_settings()
    assert str(refused.value).startswith(told)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "section",
    [Settings, KafkaSection, SchemaRegistrySection, IndexSettings, OpenSearchSection, ConsumerSettings],
)
def test_every_setting_says_what_it_is(section: type[BaseModel]) -> None:
    sections = {"kafka", "schema_registry", "index", "opensearch", "encoder", "consumer", "log"}
    silent = [name for name, field in section.model_fields.items() if not field.description]
    assert set(silent) <= sections


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CLIPTIDE_CONSUMER__HEALTH_PORT", "eighty"),
        ("CLIPTIDE_CONSUMER__BATCH_MAX_ROWS", "0"),
        ("CLIPTIDE_CONSUMER__NO_SUCH_THING", "1"),
        ("CLIPTIDE_CONSUMER__REFERENCE_HOSTS", '["a"'),
        ("CLIPTIDE_CONSUMER__ON_UNKNOWN_SCHEMA", "shrug"),
        ("CLIPTIDE_KAFKA__PROPERTIES", "acks=1"),
        ("CLIPTIDE_KAFKA__PROPERTIES", '{"acks": "1"}'),
        ("CLIPTIDE_KAFKA__PROPERTIES", '{"client.id": {}}'),
        ("CLIPTIDE_ENCODER__PRECISION", "fp8"),
        ("CLIPTIDE_SCHEMA_REGISTRY__URL", "registry:8081"),
        ("CLIPTIDE_SCHEMA_REGISTRY__PASSWORD", "without a user"),
        ("CLIPTIDE_SCHEMA_REGISTRY__CA_FILE", "/nonexistent/ca.pem"),
        ("CLIPTIDE_SCHEMA_REGISTRY__TIMEOUT_SECONDS", "0"),
        ("CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS", "kafka:9092,http://kafka:9092"),
        ("CLIPTIDE_INDEX__ID", "a/b"),
        ("CLIPTIDE_INDEX__ID", ""),
        ("CLIPTIDE_TOPIC", "shop/uploads"),
        ("CLIPTIDE_TOPIC", ""),
        ("CLIPTIDE_DEAD_LETTER_TOPIC", "ä"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings, match=f"^{variable}: [^\n]+$"):
        read_settings()


def test_a_bad_setting_exits_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPTIDE_CONSUMER__HEALTH_PORT", "eighty")
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("consumer: CLIPTIDE_CONSUMER__HEALTH_PORT: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("a defect"), 1),
        (ValueError("a defect"), 1),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "a defect"), 1),
        (ConsumerFault("a defect"), 1),
        (BadSettings("CLIPTIDE_X: no"), 2),
        (StartRefused("gone"), 3),
        (IndexRefused("another topic"), 3),
        (EncoderMismatch(built_by="one encoder", running="another"), 3),
        (UnknownSchema("x", "y"), 3),
        (CommitUnknown("?"), 3),
        (EncoderUnavailable("x", "y"), 4),
        (FatalLogError("not authorised"), 5),
        (TopicMissing("uploads"), 5),
        (DeadLetterFlood(9, 10, "x"), 6),
        (FencedWhileAssigned(0), 7),
        (Fenced("uploads-0", 1, 2), 7),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_every_failure_has_its_exit_code(error: Exception, code: int) -> None:
    assert exit_code_from(error) == code


@pytest.mark.parametrize("client", [KafkaAdmin, KafkaPublisher, KafkaRecordSource])
@pytest.mark.usefixtures("_broker_anywhere")
def test_a_property_that_librdkafka_refuses_exits_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], client: type
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(tmp_path / "index"))
    monkeypatch.setenv("CLIPTIDE_KAFKA__PROPERTIES", '{"no.such.property": 1}')
    monkeypatch.setattr(connections, client.__name__, client)
    assert run(lambda settings: HashEncoder(), []) == 2
    assert capsys.readouterr().err.startswith("consumer: CLIPTIDE_KAFKA__PROPERTIES: ")


@pytest.mark.usefixtures("_broker_anywhere")
def test_a_value_error_of_a_running_consumer_is_a_fault_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(tmp_path / "index"))
    monkeypatch.setenv("CLIPTIDE_CONSUMER__HEALTH_PORT", "0")
    assert run(lambda settings: HashEncoder(), []) == 1
    told = capsys.readouterr()
    assert "consumer: no subscription is possible" in told.err
    assert "Traceback" in told.out + told.err


def test_wrong_credentials_exit_with_5_and_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program.Signals, "listen", lambda self: None)
    properties = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
    properties |= {"sasl.username": "us", "sasl.password": "no"}
    monkeypatch.setenv("CLIPTIDE_KAFKA__PROPERTIES", json.dumps(properties))
    with sasl_broker() as address:
        monkeypatch.setenv("CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS", address)
        assert run(lambda settings: HashEncoder(), []) == 5
    told = capsys.readouterr().err
    assert "consumer: Kafka refuses this client: _AUTHENTICATION: " in told
    assert "wrong password" in told


@pytest.mark.usefixtures("_broker_anywhere")
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((401, {"error_code": 401, "message": "Unauthorized"}), "answers 401 (Unauthorized)"),
        ((404, {}), "is not the address of a schema registry"),
    ],
    ids=["401", "no registry"],
)
def test_a_registry_that_refuses_the_consumer_exits_with_5_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    told_registry: ToldRegistry,
    answer: tuple[int, object],
    reason: str,
) -> None:
    told_registry.answers["*"] = answer
    monkeypatch.setenv("CLIPTIDE_SCHEMA_REGISTRY__URL", told_registry.url)
    assert run(lambda settings: HashEncoder(), []) == 5
    told = capsys.readouterr().err
    assert told_registry.url in told
    assert reason in told


@pytest.mark.usefixtures("_broker_anywhere")
def test_a_registry_that_is_away_at_the_start_is_named_and_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A replay may need no schema that is not kept on disk."""
    monkeypatch.setenv("CLIPTIDE_SCHEMA_REGISTRY__URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(tmp_path / "index"))
    monkeypatch.setenv("CLIPTIDE_CONSUMER__HEALTH_PORT", "0")
    assert run(lambda settings: HashEncoder(), []) == 1
    told = capsys.readouterr()
    assert "starting without the schema registry" in told.out + told.err
    assert "consumer: no subscription is possible" in told.err


class Anywhere:
    """As much of a broker as a start needs before it fails."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def ensure_topic(self, topic: str, creation: object) -> TopicDescription:
        return TopicDescription(topic, "an id", 1)

    def subscribe(self, topic: str, listener: object) -> None:
        raise ValueError("no subscription is possible")

    def close(self) -> None:
        pass


@pytest.fixture
def _broker_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for client in ("KafkaAdmin", "KafkaPublisher", "KafkaRecordSource"):
        monkeypatch.setattr(connections, client, Anywhere)
    monkeypatch.setattr(program.Signals, "listen", lambda self: None)


@pytest.mark.usefixtures("_broker_anywhere")
def test_an_index_root_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(tmp_path / "file" / "index"))
    assert run(lambda settings: HashEncoder(), []) == 2
    assert f"CLIPTIDE_INDEX__ROOT: no index can be kept in {tmp_path}" in capsys.readouterr().err


@pytest.mark.usefixtures("_broker_anywhere")
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE], ids=errno.errorcode.get
)
@pytest.mark.parametrize("is_new", [True, False], ids=["new index", "existing index"])
def test_a_disk_that_takes_no_writes_is_waited_for_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_new: bool
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(tmp_path / "index"))
    monkeypatch.setenv("CLIPTIDE_CONSUMER__HEALTH_PORT", "0")
    monkeypatch.setattr(waiting, "_BACKOFF", Backoff(0.001, 0.001))
    if not is_new:
        assert run(lambda settings: HashEncoder(), []) == 1  # `Anywhere` lets it fail after the start
    make_directory, failures = local_store.make_directory, iter(range(3))

    def fail_at_first(path: Path) -> None:
        if next(failures, None) is not None:
            raise OSError(number, os.strerror(number))
        make_directory(path)

    monkeypatch.setattr(local_store, "make_directory", fail_at_first)
    assert run(lambda settings: HashEncoder(), []) == 1
    assert next(failures, None) is None


@pytest.mark.usefixtures("_broker_anywhere")
def test_another_encoder_is_refused_although_the_disk_takes_no_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(tmp_path / "index"))
    monkeypatch.setenv("CLIPTIDE_CONSUMER__HEALTH_PORT", "0")
    assert run(lambda settings: HashEncoder(), []) == 1

    def fail_always(path: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(local_store, "make_directory", fail_always)
    assert run(lambda settings: HashEncoder(seed=1), []) == 3


@pytest.mark.usefixtures("_broker_anywhere")
def test_a_stop_does_not_wait_for_a_disk_that_takes_no_writes_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(tmp_path / "index"))

    def fail_and_stop(path: Path) -> None:
        signals.is_stop_requested = True
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    signals = program.Signals()
    monkeypatch.setattr(program, "Signals", lambda: signals)
    monkeypatch.setattr(local_store, "make_directory", fail_and_stop)
    assert run(lambda settings: HashEncoder(), []) == 0


@pytest.mark.usefixtures("_broker_anywhere")
def test_a_health_port_in_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(tmp_path / "index"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("CLIPTIDE_CONSUMER__HEALTH_PORT", str(port))
        assert run(lambda settings: HashEncoder(), []) == 2
    told = capsys.readouterr().err
    assert f"CLIPTIDE_CONSUMER__HEALTH_PORT: nothing can listen on 127.0.0.1:{port}: " in told


def test_a_damaged_file_is_named_with_the_way_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_damage(settings: EncoderSettings) -> HashEncoder:
        raise DamagedFile(Path("index/ids.npy"), "another digest")

    monkeypatch.setattr(program.Signals, "listen", lambda self: None)
    assert run(find_damage, []) == 3
    told = capsys.readouterr().err
    assert told.startswith("consumer: damaged file index/ids.npy: another digest; `cliptide snapshot list`")
    assert "`cliptide snapshot repair`" in told
