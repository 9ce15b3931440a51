"""A dead letter of any record keeps to the limits of Apache Kafka, its topics and its client."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from consumer.dead_letters.dead_letter import DeadLetters, SetAside
from event_log.errors import RecordTooLarge
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings, Property
from event_log.kafka.source import KafkaRecordSource
from event_log.records import Headers, Record
from schemas.dead_letters import is_value_omitted, read_explanation
from tests.event_log.event_logs import DEADLINE_SECONDS, Reader

pytestmark = pytest.mark.kafka

MANY_BYTES = 12 * 1024 * 1024
RECORDS = {
    "a huge key": (b"k" * MANY_BYTES, b"v", ()),
    "a huge header": (b"k", b"v", (("trace", b"x" * MANY_BYTES),)),
    "no key and a huge header": (None, None, (("trace", b"x" * MANY_BYTES),)),
    "a huge value": (b"k", b"v" * MANY_BYTES, ()),
}
LIMITS: dict[str, tuple[dict[str, Property], dict[str, str | int]]] = {
    "client": ({"message.max.bytes": 2000}, {}),
    "queue": ({"queue.buffering.max.kbytes": 2}, {"max.message.bytes": 2000}),
    "topic": ({"message.max.bytes": 2 * MANY_BYTES}, {"max.message.bytes": 2000}),
    "compacted topic": ({}, {"cleanup.policy": "compact"}),
}


@pytest.mark.parametrize(("properties", "topic_config"), LIMITS.values(), ids=LIMITS.keys())
@pytest.mark.parametrize(("key", "value", "headers"), RECORDS.values(), ids=RECORDS.keys())
def test_a_dead_letter_of_any_record_is_published(
    kafka_settings: KafkaSettings,
    unique_name: Callable[[str], str],
    properties: dict[str, Property],
    topic_config: dict[str, str | int],
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
) -> None:
    settings = KafkaSettings(kafka_settings.bootstrap_servers, {**kafka_settings.properties, **properties})
    topic = unique_name("letters")
    KafkaAdmin(settings).create_topic(topic, TopicCreation(1, config=topic_config))
    publisher = KafkaPublisher(settings)
    letters = DeadLetters(publisher, topic, connector="cliptide-main", worker_id="host-1-abc")
    aside = SetAside("missing_key", "the record has no key", "decode", "schemas.errors.BadEvent")
    delivery = letters.send(Record("uploads", 3, 41, key, value, headers, 0, 1), aside)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not delivery.is_delivered(time.monotonic()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    publisher.close()
    reader = Reader(KafkaRecordSource(kafka_settings, unique_name("group")), topic)
    reader.poll_to_ends({0: 1})
    [letter] = reader.records
    said = read_explanation(letter.headers)
    assert (str(said.origin), said.reason) == ("uploads-3@41", "missing_key")
    assert is_value_omitted(letter.headers)
    reader.source.close()


def test_a_value_larger_than_the_publishers_queue_is_refused_instead_of_waiting_for_ever(
    kafka_settings: KafkaSettings, unique_name: Callable[[str], str]
) -> None:
    properties: dict[str, Property] = {**kafka_settings.properties, "queue.buffering.max.kbytes": 2}
    publisher = KafkaPublisher(KafkaSettings(kafka_settings.bootstrap_servers, properties))
    refused = publisher.publish(unique_name("uploads"), key=b"k", value=bytes(2049))
    assert isinstance(refused.exception(0), RecordTooLarge)
    publisher.close()
