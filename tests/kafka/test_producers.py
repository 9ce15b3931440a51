"""Each example for producers runs against Apache Kafka, and what it publishes is read as it is meant."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import murmur2

from cliptide.dead_letters.reading import TopicScan
from cliptide.terminal.connections import open_source
from consumer.registry.asked_schemas import AskedSchemas
from consumer.registry.kept_schemas import KeptSchemas
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.settings import KafkaSettings
from event_log.records import Record
from event_log.schema_registry.client import RegistryClient
from event_log.schema_registry.settings import RegistrySettings
from schemas.clock_time import time_from_ms
from schemas.codec import EventDecoder
from schemas.events import ContentReference, DeleteEvent, TextContent, UploadEvent
from tests.kafka.producers import EXAMPLES, SCHEMA, ExampleUnavailable, command_of
from tests.registry.apicurio import Apicurio

OCCURRED_AT = time_from_ms(1772368215250)
EVENTS = {
    "shoe-1": UploadEvent("", "shoe-1", "shop", OCCURRED_AT, TextContent("a red shoe")),
    "shoe-2": UploadEvent(
        "", "shoe-2", "shop", OCCURRED_AT, ContentReference("s3://uploads/shoe-2.jpg", None, None, "image")
    ),
    "shoe-3": DeleteEvent("", "shoe-3", "shop", OCCURRED_AT),
}
DATA = {
    "shoe-1": "0c73686f652d31a4f385969567000002146120726564 2073686f65000873686f700000000000",
    "shoe-2": "0c73686f652d32a4f3859695670000082e73333a2f2f75706c6f6164732f73686f652d322e6a7067"
    "00000002000873686f700000000000",
    "shoe-3": "0c73686f652d33a4f3859695670200000008 73686f700000000000",
}
"""The golden datum of each event. Every Avro library writes these bytes behind its prefix."""
HEADER = bytes.fromhex("c30123d34fc1b3e2be17")
CLIENTS: tuple[str, ...] = ("node", "java", "go", "python")
if os.environ.get("CLIPTIDE_TEST_RUST"):  # its build takes minutes: make producer-rust
    CLIENTS = ("rust",)
NUM_PARTITIONS = 4

Topic = Callable[[], str]


@pytest.fixture
def topic(kafka_settings: KafkaSettings, unique_name: Callable[[str], str]) -> str:
    creation = TopicCreation(NUM_PARTITIONS)
    return KafkaAdmin(kafka_settings).create_topic(unique_name("uploads"), creation).name


def published(kafka: KafkaSettings, topic: str, client: str, *arguments: str) -> dict[str, Record]:
    """Run an example, and return its records by key, each of which must lie where murmur2 puts it."""
    try:
        command = [*command_of(client), kafka.bootstrap_servers, topic, *arguments]
    except ExampleUnavailable as error:
        pytest.skip(f"examples for producers: {error}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    with open_source(kafka) as source:
        records = {(record.key or b"").decode(): record for record in TopicScan(source, topic).records()}
    assert {key: one.partition for key, one in records.items()} == {
        key: murmur2(key.encode(), NUM_PARTITIONS) for key in EVENTS
    }
    return records


def decoded(decoder: EventDecoder, records: dict[str, Record]) -> dict[str, object]:
    return {
        key: decoder.decode(key=r.key, value=r.value, headers=r.headers, timestamp_ms=r.timestamp_ms)
        for key, r in records.items()
    }


@pytest.mark.parametrize("client", [*CLIENTS, "kcat"])
def test_an_example_publishes_plain_json(kafka_settings: KafkaSettings, topic: str, client: str) -> None:
    arguments = () if client == "kcat" else ("json", str(SCHEMA))
    records = published(kafka_settings, topic, client, *arguments)
    assert decoded(EventDecoder(), records) == EVENTS
    assert all(dict(one.headers) == {"content-type": b"application/json"} for one in records.values())


@pytest.mark.parametrize("client", CLIENTS)
def test_an_example_publishes_the_golden_bytes_of_avro(
    kafka_settings: KafkaSettings, topic: str, client: str
) -> None:
    records = published(kafka_settings, topic, client, "avro", str(SCHEMA))
    assert {key: one.value for key, one in records.items()} == {
        key: HEADER + bytes.fromhex(datum) for key, datum in DATA.items()
    }
    assert decoded(EventDecoder(), records) == EVENTS


@pytest.mark.parametrize("client", CLIENTS)
def test_an_example_publishes_the_framing_of_a_registry(
    kafka_settings: KafkaSettings, topic: str, client: str, apicurio: Apicurio
) -> None:
    records = published(kafka_settings, topic, client, "registry", str(SCHEMA), apicurio.url)
    with closing(RegistryClient(RegistrySettings(apicurio.url))) as registry:
        key = registry.register(f"{topic}-value", SCHEMA.read_text()).number
        schemas = AskedSchemas(registry, KeptSchemas(Path("/nonexistent"), apicurio.url))
        assert decoded(EventDecoder(registry=schemas), records) == EVENTS
    prefix = b"\0" + key.to_bytes(4, "big")
    assert {key: one.value for key, one in records.items()} == {
        key: prefix + bytes.fromhex(datum) for key, datum in DATA.items()
    }


@pytest.mark.parametrize("client", [*CLIENTS, "kcat"])
def test_an_example_without_its_arguments_says_how_it_is_called(client: str) -> None:
    try:
        command = command_of(client)
    except ExampleUnavailable as error:
        pytest.skip(f"examples for producers: {error}")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "usage: " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_versions_of_the_examples_are_pinned() -> None:
    packages = json.loads((EXAMPLES / "node" / "package.json").read_text())["dependencies"]
    pom = (EXAMPLES / "java" / "pom.xml").read_text()
    versions = [*packages.values(), *re.findall(r"<version>(.*)</version>", pom)]
    assert all(re.fullmatch(r"[\d.]+", version) for version in versions)
    assert "resolved" not in (EXAMPLES / "node" / "package-lock.json").read_text()
