"""What every publisher does, whatever log is behind it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import murmur2

from event_log.errors import FatalLogError, RecordTooLarge
from event_log.kafka.settings import MAX_RECORD_BYTES
from event_log.records import Delivery
from tests.event_log.event_logs import DEADLINE_SECONDS, EventLogUnderTest, Reader


def test_a_delivery_says_where_the_record_lies(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    deliveries = [
        publisher.publish(topic, key=b"key", value=b"value").result(DEADLINE_SECONDS) for _ in range(3)
    ]
    assert deliveries == [Delivery(topic, 0, offset, offset + 1) for offset in range(3)]


def test_what_is_offered_is_delivered_as_well(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    offered = publisher.offer(topic, key=b"key", value=b"value", headers=(("name", b"value"),))
    assert offered.result(30) == Delivery(topic, 0, 0, 1)
    refused = publisher.offer(topic, key=b"key", value=bytes(MAX_RECORD_BYTES + 1))
    assert isinstance(refused.exception(30), RecordTooLarge)


def test_records_of_one_key_keep_their_order(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(4)
    publisher = event_log.publisher()
    futures = [publisher.publish(topic, key=b"key", value=b"%d" % number) for number in range(200)]
    assert publisher.flush(DEADLINE_SECONDS) == 0
    assert [future.result(0).offset for future in futures] == list(range(200))
    assert {future.result(0).partition for future in futures} == {murmur2(b"key", 4)}


def test_records_without_a_key_are_delivered_too(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    delivery = event_log.publisher().publish(topic, key=None, value=b"value").result(DEADLINE_SECONDS)
    assert delivery.partition in (0, 1)


def test_after_a_flush_every_future_is_resolved(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    futures = [publisher.publish(topic, key=b"key", value=b"value") for _ in range(50)]
    assert publisher.flush(DEADLINE_SECONDS) == 0
    assert all(future.done() for future in futures)


def test_closing_delivers_what_is_queued(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    futures = [publisher.publish(topic, key=b"key", value=b"value") for _ in range(50)]
    publisher.close()
    assert [future.result(0).offset for future in futures] == list(range(50))


def test_a_closed_publisher_refuses(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    publisher.close()
    publisher.close()
    with pytest.raises(FatalLogError, match="the publisher is closed"):
        publisher.publish(topic, key=b"key", value=b"value").result(DEADLINE_SECONDS)


def test_a_record_above_the_limit_is_refused_and_the_next_one_is_not(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    refused = publisher.publish(topic, key=b"key", value=bytes(MAX_RECORD_BYTES + 1))
    accepted = publisher.publish(topic, key=b"key", value=b"value")
    with pytest.raises(RecordTooLarge):
        refused.result(DEADLINE_SECONDS)
    assert accepted.result(DEADLINE_SECONDS).offset == 0


def test_a_future_cannot_be_cancelled_once_its_record_is_queued(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    future = event_log.publisher().publish(topic, key=b"key", value=b"value")
    assert not future.cancel()
    assert future.result(DEADLINE_SECONDS).offset == 0


def test_many_threads_publish_at_once(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda n: publisher.publish(topic, key=b"%d" % n, value=b""), range(400)))
    assert sorted(future.result(DEADLINE_SECONDS).offset for future in futures) == list(range(400))
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 400})
    assert {record.key for record in reader.records} == {b"%d" % number for number in range(400)}
