"""What happens while no broker answers."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka import KafkaError, KafkaException

from cliptide.demo.embedded_broker import EmbeddedBroker
from event_log.errors import EventLogError, TransientLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from tests.event_log.event_logs import DEADLINE_SECONDS, OnBroker, Reader, wait_until

NOBODY = "127.0.0.1:1"  # a reserved port: connections are refused


def _source() -> KafkaRecordSource:
    return KafkaRecordSource(KafkaSettings(NOBODY), "group", request_timeout_seconds=0.3)


def test_a_poll_comes_back_empty() -> None:
    source = _source()
    reader = Reader(source, "uploads")
    reader.poll(timeout_seconds=0.3)
    assert reader.records == []
    source.close()


def test_a_client_that_fails_while_its_join_is_waited_for_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    source = _source()
    Reader(source, "uploads")
    consumer = source._consumer

    class Failing:
        memberid, close = consumer.memberid, consumer.close

        def consume(self, *_: object) -> None:
            raise KafkaException(KafkaError(KafkaError._FAIL))

    monkeypatch.setattr(source, "_consumer", Failing())
    with pytest.raises(KafkaException):
        source.close()
    with pytest.raises(RuntimeError, match="closed"):
        consumer.consume(1, 0)


def test_questions_are_answered_by_a_transient_error() -> None:
    source = _source()
    Reader(source, "uploads")
    for ask in (
        lambda: source.committed([0]),
        lambda: source.log_range(0),
        lambda: source.describe_topic("uploads"),
    ):
        with pytest.raises(TransientLogError):
            ask()
    source.close()


def test_an_admin_says_that_nobody_is_reachable() -> None:
    with pytest.raises(TransientLogError):
        KafkaAdmin(KafkaSettings(NOBODY), request_timeout_seconds=0.3).check_reachable()


def test_a_record_that_was_not_delivered_in_time_is_a_transient_error() -> None:
    publisher = KafkaPublisher(KafkaSettings(NOBODY, {"message.timeout.ms": 300}))
    future = publisher.publish("uploads", key=b"key", value=b"value")
    with pytest.raises(TransientLogError):
        future.result(DEADLINE_SECONDS)
    publisher.close()


def test_closing_a_publisher_fails_what_could_not_be_delivered() -> None:
    publisher = KafkaPublisher(KafkaSettings(NOBODY), close_timeout_seconds=0.1)
    future = publisher.publish("uploads", key=b"key", value=b"value")
    assert publisher.flush(0.1) == 1
    publisher.close()
    with pytest.raises(TransientLogError):
        future.result(0)


def test_publishing_into_a_full_queue_waits_for_room() -> None:
    settings = KafkaSettings(NOBODY, {"queue.buffering.max.messages": 1, "message.timeout.ms": 400})
    publisher = KafkaPublisher(settings)
    started = time.monotonic()
    first = publisher.publish("uploads", key=b"key", value=b"value")
    second = publisher.publish("uploads", key=b"key", value=b"value")
    assert time.monotonic() - started > 0.2
    for future in (first, second):
        with pytest.raises(TransientLogError):
            future.result(DEADLINE_SECONDS)
    publisher.close()


def test_what_is_offered_to_a_full_queue_is_a_transient_error_at_once() -> None:
    settings = KafkaSettings(NOBODY, {"queue.buffering.max.messages": 1})
    publisher = KafkaPublisher(settings, close_timeout_seconds=0.1)
    first = publisher.offer("uploads", key=b"key", value=b"value")
    second = publisher.offer("uploads", key=b"key", value=b"value")
    assert not first.done()
    assert isinstance(second.exception(timeout=0), TransientLogError)
    publisher.close()


@pytest.mark.broker
def test_a_reader_outlives_its_broker() -> None:
    with EmbeddedBroker() as broker:
        settings = KafkaSettings(broker.bootstrap_servers, {"session.timeout.ms": 1500})
        log = OnBroker(settings)
        topic = log.create_topic()
        log.append(topic, 0, [b"value"])
        source = KafkaRecordSource(settings, "group", request_timeout_seconds=0.5)
        reader = Reader(source, topic)
        reader.poll_to_ends({0: 1})
    reader.poll(timeout_seconds=0.3)
    with pytest.raises(TransientLogError):
        source.log_range(0)
    assert reader.values == [b"value"]
    source.close()


@pytest.mark.broker
def test_a_broker_that_dies_while_a_request_is_on_its_way_is_waited_for() -> None:
    with EmbeddedBroker() as broker:
        settings = KafkaSettings(broker.bootstrap_servers)
        topic = OnBroker(settings).create_topic()
        source = KafkaRecordSource(settings, "group", request_timeout_seconds=0.5)
        Reader(source, topic)
        source.log_range(0)
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(lambda: [ask_until_it_fails(source) for _ in range(3)])
            broker.stop()
            errors = asking.result(DEADLINE_SECONDS)
    assert {type(error) for error in errors} == {TransientLogError}
    source.close()


def ask_until_it_fails(source: KafkaRecordSource) -> EventLogError:
    while True:
        try:
            source.log_range(0)
        except EventLogError as error:
            return error


def is_delivered(publisher: KafkaPublisher, topic: str) -> bool:
    """Whether a record is delivered at once. It is not if the machine stalls for three seconds."""
    future = publisher.publish(topic, key=b"key", value=b"value")
    wait_until(future.done)
    return future.exception() is None


@pytest.mark.broker
def test_what_is_published_when_the_broker_is_gone_is_a_transient_error() -> None:
    with EmbeddedBroker() as broker:
        settings = KafkaSettings(broker.bootstrap_servers, {"message.timeout.ms": 3000})
        topic = OnBroker(settings).create_topic()
        publisher = KafkaPublisher(settings)
        wait_until(lambda: is_delivered(publisher, topic))
    future = publisher.publish(topic, key=b"key", value=b"value")
    wait_until(future.done)
    assert isinstance(future.exception(), TransientLogError)
    publisher.close()
