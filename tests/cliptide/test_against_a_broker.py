"""The commands against the embedded broker: what they publish is what a consumer reads."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from cliptide.__main__ import main
from cliptide.dead_letters.reading import TopicScan
from cliptide.terminal.connections import open_publisher, open_source
from consumer.dead_letters.dead_letter import SetAside, headers_from_set_aside
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.settings import KafkaSettings
from event_log.records import Headers, Record
from schemas.codec import EventDecoder
from schemas.events import DeleteEvent, Event, UploadEvent
from tests.cliptide.stub_query_service import StubQueryService, refusal

pytestmark = pytest.mark.broker


@pytest.fixture
def kafka(embedded_settings: KafkaSettings) -> KafkaSettings:
    return embedded_settings


@pytest.fixture
def topic(kafka: KafkaSettings, unique_name: Callable[[str], str]) -> str:
    return KafkaAdmin(kafka).create_topic(unique_name("uploads"), TopicCreation(2)).name


def run(kafka: KafkaSettings, *arguments: str, stdin: str | None = None) -> Result:
    env = {
        "CLIPTIDE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "CLIPTIDE_KAFKA__PROPERTIES": json.dumps(dict(kafka.properties)),
        "CLIPTIDE_QUERY_URL": "http://127.0.0.1:1",  # not the service that this machine may run
    }
    return CliRunner(env=env).invoke(main, list(arguments), input=stdin)


def summary(result: Result) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return fields


def events_in(kafka: KafkaSettings, topic: str) -> list[Event]:
    decoder = EventDecoder()
    with open_source(kafka) as source:
        return [
            decoder.decode(key=r.key, value=r.value, headers=r.headers, timestamp_ms=r.timestamp_ms)
            for r in TopicScan(source, topic).records()
        ]


def write_source(folder: Path) -> Path:
    (folder / "boot.png").write_bytes(b"a picture")
    source = folder / "uploads.jsonl"
    lines = [{"file": "boot.png", "owner": "ada"}, {"id": "t", "text": "a red boot"}, {"id": "nothing"}]
    source.write_text("\n".join(map(json.dumps, lines)))
    return source


def test_what_can_be_published_is_in_the_log_and_the_rest_is_named(
    kafka: KafkaSettings, topic: str, tmp_path: Path
) -> None:
    result = run(kafka, "publish", str(write_source(tmp_path)), "--topic", topic)
    assert result.exit_code == 1
    assert "line 3: has no file, text or link" in result.stderr
    fields = summary(result)
    assert (fields["rows"], fields["published"], fields["failed"]) == (3, 2, 1)
    assert sum(fields["next_offsets"].values()) == 2
    uploads = [event for event in events_in(kafka, topic) if isinstance(event, UploadEvent)]
    assert {(upload.content_id, upload.owner_id) for upload in uploads} == {("boot.png", "ada"), ("t", None)}


@pytest.mark.parametrize("framing", ["prefix", "header"])
def test_uploads_and_deletes_are_framed_for_a_schema_registry_when_told_so(
    kafka: KafkaSettings, topic: str, tmp_path: Path, framing: str
) -> None:
    flags = ("--topic", topic, "--registry-url", "mock://registry", "--framing", framing)
    run(kafka, "publish", str(write_source(tmp_path)), *flags)
    assert run(kafka, "delete", "t", *flags).exit_code == 0
    with open_source(kafka) as source:
        records = list(TopicScan(source, topic).records())
    assert len(records) == 3
    for record in records:
        assert record.value is not None
        is_prefixed = record.value.startswith(b"\0\0\0\0\1")
        assert is_prefixed == (framing == "prefix")
        assert [name for name, _ in record.headers] == ([] if is_prefixed else ["__value_schema_id"])


@pytest.mark.parametrize("framing", ["none", "prefix", "header"])
def test_a_delete_has_the_key_that_a_registry_s_serializer_writes_so_that_it_reaches_the_content(
    kafka: KafkaSettings, topic: str, framing: str
) -> None:
    """The bytes of the key choose the partition."""
    registry = SchemaRegistryClient.new_client({"url": "mock://registry-of-keys"})
    serializer = AvroSerializer(registry, '"string"')
    flags = ("--topic", topic, "--registry-url", "mock://registry-of-keys", "--framing", framing)
    assert run(kafka, "delete", "schön-1", *flags, "--keys", "framed").exit_code == 0
    with open_source(kafka) as source:
        [record] = TopicScan(source, topic).records()
    written = serializer("schön-1", SerializationContext(topic, MessageField.KEY))
    names = {name for name, _ in record.headers}
    assert record.key is not None
    prefix, datum = written[:5], written[5:]
    if framing == "header":
        assert record.key == datum
        assert names == {"__key_schema_id", "__value_schema_id"}
    else:
        assert (len(record.key), record.key[:4]) == (len(written), prefix[:4])
        assert record.key.endswith(datum)
        assert names == set()
    plain = run(kafka, "delete", "x", "--topic", topic, "--keys", "framed")
    assert "--keys framed needs --registry-url" in plain.stderr


def test_framing_needs_a_registry_that_answers(kafka: KafkaSettings, topic: str, tmp_path: Path) -> None:
    source = str(write_source(tmp_path))
    result = run(kafka, "publish", source, "--topic", topic, "--framing", "prefix")
    assert result.exit_code == 2
    assert "--framing prefix needs --registry-url" in result.stderr
    away = ("--framing", "prefix", "--registry-url", "http://127.0.0.1:9")
    result = run(kafka, "publish", source, "--topic", topic, *away)
    assert result.exit_code == 1
    assert "schema registry http://127.0.0.1:9 does not answer" in result.stderr


def test_a_repeated_run_names_the_same_contents_and_events(
    kafka: KafkaSettings, topic: str, tmp_path: Path
) -> None:
    source = str(write_source(tmp_path))
    for _ in range(2):
        run(kafka, "publish", source, "--topic", topic)
    events = events_in(kafka, topic)
    assert len(events) == 4
    assert len({(event.content_id, event.event_id) for event in events}) == 2


def test_waiting_asks_for_every_content_and_names_what_is_not_there(
    kafka: KafkaSettings, topic: str, tmp_path: Path
) -> None:
    shards = {
        f"{topic}-{n}": {"generation": 1, "next_offset": 10, "num_contents": {"text": 1}} for n in (0, 1)
    }
    answers: dict[str, tuple[int, Any]] = {
        "GET /v1/index": (200, {"shards": shards}),
        "GET /v1/contents/t": (200, {"content": {"content_id": "t"}}),
        "GET /v1/contents/boot.png": (404, refusal("unknown_content")),
    }
    with StubQueryService(answers).serving() as service:
        arguments = ("--topic", topic, "--wait", "--query-url", service.url)
        result = run(kafka, "publish", str(write_source(tmp_path)), *arguments)
    assert result.exit_code == 1
    assert summary(result)["searchable"] == 1
    assert summary(result)["missing"] == ["boot.png"]


def test_waiting_in_vain_says_how_far_the_index_is(kafka: KafkaSettings, topic: str, tmp_path: Path) -> None:
    with StubQueryService({"GET /v1/index": (200, {"shards": {}})}).serving() as service:
        arguments = ("--topic", topic, "--wait", "--wait-timeout", "0.2", "--query-url", service.url)
        result = run(kafka, "publish", str(write_source(tmp_path)), *arguments)
    assert result.exit_code == 1
    assert "at 0 of" in summary(result)["problem"]


def test_deletes_are_delete_events(kafka: KafkaSettings, topic: str) -> None:
    result = run(kafka, "delete", "a", "b", "--version", "4", "--topic", topic)
    assert result.exit_code == 0
    assert summary(result)["published"] == 2
    events = events_in(kafka, topic)
    assert all(isinstance(event, DeleteEvent) and event.version == 4 for event in events)
    assert {event.content_id for event in events} == {"a", "b"}


def test_a_delete_says_which_contents_the_index_does_not_hold(kafka: KafkaSettings, topic: str) -> None:
    def newest(request: Any) -> Any:
        return {"results": {"image": {"hits": [{"content_id": "a"}]}}}

    shards = {f"{topic}-0": {"generation": 1, "next_offset": 10, "num_contents": {}}}
    answers = {"GET /v1/index": (200, {"shards": shards}), "POST /v1/browse": (200, newest)}
    with StubQueryService(answers).serving() as service:
        arguments = ("a", "nowhere", "x" * 513, "--topic", topic, "--query-url", service.url)
        result = run(kafka, "delete", *arguments)
        [*_, (_, _, asked)] = service.requests
    assert asked["filter"]["must"][0]["any_of"] == ["a", "nowhere"]
    assert "nowhere: the index holds no such content" in result.stderr
    fields = summary(result)
    assert (fields["published"], fields["unknown"], fields["failed"]) == (2, ["nowhere"], 1)
    assert result.exit_code == 1
    unreachable = run(kafka, "delete", "a", "--topic", topic, "--query-url", "http://127.0.0.1:1")
    assert unreachable.exit_code == 0
    assert "not known whether the index holds these contents" in unreachable.stderr
    assert "unknown" not in summary(unreachable)


def test_ids_to_delete_can_come_from_standard_input(kafka: KafkaSettings, topic: str) -> None:
    result = run(kafka, "delete", "-", "--topic", topic, stdin=f"a b\n\n{'x' * 513}\n")
    assert result.exit_code == 1
    assert "content_id_too_long" in result.stderr
    assert [event.content_id for event in events_in(kafka, topic)] == ["a b"]


def test_a_topic_that_is_missing_is_named(kafka: KafkaSettings, tmp_path: Path) -> None:
    result = run(kafka, "publish", str(write_source(tmp_path)), "--topic", "nowhere")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: topic 'nowhere' does not exist"


def letter_headers(reason: str, offset: int) -> Headers:
    return (
        ("__connect.errors.topic", b"content-uploads"),
        ("__connect.errors.partition", b"1"),
        ("__connect.errors.offset", str(offset).encode()),
        ("__connect.errors.exception.message", b"truncated after 12 bytes"),
        ("cliptide.reason", reason.encode()),
    )


@pytest.fixture
def letters(kafka: KafkaSettings, topic: str) -> str:
    with open_publisher(kafka, topic) as publisher:
        for offset, reason in enumerate(["truncated_image", "empty_content", "truncated_image"]):
            headers = letter_headers(reason, offset)
            publisher.publish(topic, key=f"c{offset}".encode(), value=b"v", headers=headers).result(60)
    return topic


def test_dead_letters_are_listed_with_place_and_reason(kafka: KafkaSettings, letters: str) -> None:
    result = run(kafka, "dead-letters", "--dead-letter-topic", letters, "--json")
    assert result.exit_code == 0
    listed = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(one["content_id"], one["reason"], one["origin"]["offset"]) for one in listed] == [
        ("c0", "truncated_image", 0),
        ("c1", "empty_content", 1),
        ("c2", "truncated_image", 2),
    ]
    assert listed[0]["error"] == "truncated after 12 bytes"


def test_dead_letters_are_counted_by_reason(kafka: KafkaSettings, letters: str) -> None:
    result = run(
        kafka, "dead-letters", "--dead-letter-topic", letters, "--last", "1", "--reason", "truncated_image"
    )
    assert "2 dead letters: truncated_image 2" in result.stdout
    assert "c2" in result.stdout
    assert "c0" not in result.stdout


def test_no_topic_means_no_dead_letters(kafka: KafkaSettings) -> None:
    result = run(kafka, "dead-letters", "--dead-letter-topic", "never-created")
    assert result.exit_code == 0
    assert "no dead letters" in result.stdout


def test_dead_letters_go_back_once_and_never_as_deletes(kafka: KafkaSettings, topic: str) -> None:
    letters = KafkaAdmin(kafka).create_topic(f"{topic}.letters", TopicCreation(1)).name
    kept = {"boot": b"\x89a picture", "shoe": b"\x89another"}
    with open_publisher(kafka, topic) as publisher:
        places = {
            key: publisher.publish(topic, key=key.encode(), value=value).result(60)
            for key, value in {**kept, "large": b"too large"}.items()
        }
        for key, place in places.items():
            origin = Record(topic, place.partition, place.offset, key.encode(), kept.get(key), (), 0, 1)
            aside = SetAside("damaged_image", "why", "prepare", "BadContent")
            headers = headers_from_set_aside(origin, aside, connector="cliptide", worker_id="w")
            if origin.value is None:
                headers = (*headers, ("cliptide.value_omitted", b"too_large"))
            publisher.publish(letters, key=origin.key, value=origin.value, headers=headers).result(60)
    arguments = ("dead-letters", "--republish", "--dead-letter-topic", letters, "--topic", topic)
    dry = summary(run(kafka, *arguments, "--dry-run"))
    assert (dry["eligible"], dry["republished"]) == (2, 0)
    result = run(kafka, *arguments)
    assert result.exit_code == 1
    assert (summary(result)["republished"], summary(result)["refused"]) == (2, {"value_omitted": 1})
    again = summary(run(kafka, *arguments))
    assert (again["republished"], again["refused"]) == (0, {"value_omitted": 1, "superseded": 2})
    with open_source(kafka) as source:
        records = [(r.key or b"", r.value) for r in TopicScan(source, topic).records()]
    assert sorted(records) == sorted(
        [(k.encode(), v) for k, v in kept.items()] * 2 + [(b"large", b"too large")]
    )


def test_only_a_republication_can_be_a_dry_run(kafka: KafkaSettings) -> None:
    assert run(kafka, "dead-letters", "--dry-run").exit_code == 2
