"""The partition of a key is the one that our publisher and Java's client choose."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from event_log.kafka.settings import KafkaSettings
from event_log.partitioning import partition_from_key
from tests.event_log.event_logs import DEADLINE_SECONDS, EventLogUnderTest, OnBroker

KEYS = [b"shoe-1", "größe/ß".encode(), b"\x00\xff", *(b"c%d" % number for number in range(40))]


def test_a_key_belongs_to_the_partition_that_the_publisher_chooses(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(4)
    publisher = event_log.publisher()
    futures = [publisher.publish(topic, key=key, value=b"") for key in KEYS]
    placed = [future.result(DEADLINE_SECONDS).partition for future in futures]
    assert placed == [partition_from_key(key, 4) for key in KEYS]


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    ],
)
def test_javas_own_examples_are_placed_as_in_java(key: bytes, hashed: int) -> None:
    """The hashes of `UtilsTest.testMurmur2` in Apache Kafka, made positive as its partitioner does."""
    assert partition_from_key(key, 6) == (hashed & 0x7FFFFFFF) % 6


def test_librdkafkas_default_places_keys_elsewhere(broker_settings: KafkaSettings) -> None:
    log = OnBroker(broker_settings)
    topic = log.create_topic(4)
    placed: dict[bytes, int] = {}
    producer = Producer({"bootstrap.servers": broker_settings.bootstrap_servers})
    for key in KEYS:
        producer.produce(
            topic, key=key, value=b"", on_delivery=lambda _, m: placed.update({m.key(): m.partition()})
        )
    assert producer.flush(DEADLINE_SECONDS) == 0
    misplaced = [key for key in KEYS if placed[key] != partition_from_key(key, 4)]
    assert len(misplaced) > len(KEYS) // 4
    log.close()
