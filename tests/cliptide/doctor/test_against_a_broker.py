"""The doctor against the embedded broker: topics that are missing, and keys in other partitions."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import Producer

from cliptide.doctor.findings import Finding
from cliptide.doctor.kafka_checks import check_kafka
from consumer.settings import ConsumerSettings, KafkaSection, Settings
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.settings import KafkaSettings
from event_log.partitioning import partition_from_key

pytestmark = pytest.mark.broker


def findings(kafka: KafkaSettings, topic: str, **consumer: Any) -> dict[str, Finding]:
    """Return the last finding of each check."""
    settings = Settings(
        kafka=KafkaSection(bootstrap_servers=kafka.bootstrap_servers, properties=dict(kafka.properties)),
        topic=topic,
        dead_letter_topic=f"{topic}.dead",
        consumer=ConsumerSettings(**consumer),
    )
    return {finding.check: finding for finding in check_kafka(settings)}


def test_topics_that_are_missing_are_failures_unless_the_consumer_creates_them(
    embedded_settings: KafkaSettings, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("absent")
    found = findings(embedded_settings, topic)
    assert {found[check].status for check in ("topic", "dead letters")} == {"failed"}
    assert "CLIPTIDE_CONSUMER__CREATE_TOPICS" in (found["topic"].remedy or "")
    found = findings(embedded_settings, topic, create_topics=True)
    assert {found[check].status for check in ("topic", "dead letters")} == {"ok"}


def murmur2(key: bytes) -> int:
    return partition_from_key(key, 2)


def other(key: bytes) -> int:
    return 1 - murmur2(key)


@pytest.mark.parametrize(
    ("keys", "partitioner", "status"),
    [
        ([b"a", b"b", b"c"], murmur2, "ok"),
        ([b"a", b"b", b"c"], other, "failed"),
        ([None], lambda _: 0, "failed"),
        ([], murmur2, "skipped"),
    ],
    ids=["murmur2", "another_partitioner", "no_key", "no_records"],
)
def test_the_newest_keys_are_compared_with_their_partitions(
    embedded_settings: KafkaSettings,
    unique_name: Callable[[str], str],
    keys: list[bytes | None],
    partitioner: Callable[[bytes | None], int],
    status: str,
) -> None:
    topic = KafkaAdmin(embedded_settings).create_topic(unique_name("uploads"), TopicCreation(2)).name
    producer = Producer({"bootstrap.servers": embedded_settings.bootstrap_servers})
    for key in keys:
        producer.produce(topic, b"{}", key, partition=partitioner(key))
    assert producer.flush(60) == 0
    assert findings(embedded_settings, topic)["partitioner"].status == status
