"""A record that librdkafka cannot hand over holds its partition, and is named with what lifts it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, Producer

from event_log.errors import RecordUnreadable
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.errors import error_of_record
from event_log.kafka.settings import KafkaSettings, Property
from event_log.kafka.source import KafkaRecordSource
from tests.event_log.event_logs import Reader, wait_until

SMALL: dict[str, Property] = {
    "message.max.bytes": 1_000_000,
    "fetch.message.max.bytes": 1_000_000,
    "fetch.max.bytes": 1_000_000,
    "receive.message.max.bytes": 1_100_000,
}


def produce_inflating(settings: KafkaSettings, topic: str) -> None:
    """Append to partition 0 a record that is small in the log and large when it is decompressed."""
    producer = Producer(
        {
            "bootstrap.servers": settings.bootstrap_servers,
            "compression.type": "zstd",
            "message.max.bytes": 4_000_000,
        }
    )
    producer.produce(topic, value=bytes(3_000_000), partition=0)
    producer.flush()


def test_a_record_that_inflates_too_far_is_named_and_the_other_partitions_go_on(
    broker_settings: KafkaSettings, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("uploads")
    KafkaAdmin(broker_settings).create_topic(topic, TopicCreation(2))
    produce_inflating(broker_settings, topic)
    small = KafkaSettings(broker_settings.bootstrap_servers, {**broker_settings.properties, **SMALL})
    source = KafkaRecordSource(small, unique_name("group"))
    reader = Reader(source, topic)
    errors: list[RecordUnreadable] = []

    def is_met_again() -> bool:
        try:
            reader.poll()
        except RecordUnreadable as error:
            errors.append(error)
        return len(errors) >= 2

    wait_until(is_met_again)
    assert (errors[0].partition, errors[0].offset) == (0, 0)
    assert f"{topic}-0@0: " in str(errors[0])
    assert "receive.message.max.bytes" in str(errors[0])
    producer = Producer({"bootstrap.servers": small.bootstrap_servers})
    producer.produce(topic, value=b"beside it", partition=1)
    producer.flush()

    def has_come() -> bool:
        is_met_again()
        return b"beside it" in reader.values

    wait_until(has_come)
    source.close()


@pytest.mark.parametrize(
    "code",
    [
        KafkaError._BAD_COMPRESSION,
        KafkaError._BAD_MSG,
        KafkaError.INVALID_MSG,
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.UNSUPPORTED_COMPRESSION_TYPE,
    ],
    ids=lambda code: KafkaError(code).name(),
)
def test_what_cannot_be_read_at_a_position_names_it_and_the_way_on(code: int) -> None:
    error = error_of_record(KafkaError(code), topic="uploads", partition=3, offset=7)
    assert error is not None
    assert str(error).startswith("uploads-3@7: the record cannot be read: ")
    assert "--accept-data-loss" in str(error)


def test_an_error_of_no_position_is_not_about_a_record() -> None:
    assert error_of_record(KafkaError(KafkaError._BAD_MSG), topic="uploads", partition=-1, offset=-1) is None
    assert error_of_record(KafkaError(KafkaError._TRANSPORT), topic="uploads", partition=3, offset=7) is None
