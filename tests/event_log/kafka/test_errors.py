"""Which of Kafka's errors becomes which of ours."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from event_log.errors import (
    EventLogError,
    FatalLogError,
    OffsetOutOfRange,
    RecordTooLarge,
    TopicMissing,
    TransientLogError,
)
from event_log.kafka.errors import error_from_kafka, mapped_kafka_errors


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError._TRANSPORT, TransientLogError),
        (KafkaError._TIMED_OUT, TransientLogError),
        (KafkaError._MSG_TIMED_OUT, TransientLogError),
        (KafkaError._ALL_BROKERS_DOWN, TransientLogError),
        (KafkaError.NOT_COORDINATOR, TransientLogError),
        (KafkaError.COORDINATOR_LOAD_IN_PROGRESS, TransientLogError),
        (KafkaError.LEADER_NOT_AVAILABLE, TransientLogError),
        (KafkaError.NOT_ENOUGH_REPLICAS, TransientLogError),
        (KafkaError.REQUEST_TIMED_OUT, TransientLogError),
        (KafkaError.REBALANCE_IN_PROGRESS, TransientLogError),
        (KafkaError._DESTROY_BROKER, TransientLogError),
        (KafkaError._DESTROY, TransientLogError),
        (KafkaError._ASSIGNMENT_LOST, TransientLogError),
        (KafkaError._IN_PROGRESS, TransientLogError),
        (KafkaError._INTR, TransientLogError),
        (KafkaError._NODE_UPDATE, TransientLogError),
        (KafkaError._OUTDATED, TransientLogError),
        (KafkaError._PARTIAL, TransientLogError),
        (KafkaError._PREV_IN_PROGRESS, TransientLogError),
        (KafkaError._RETRY, TransientLogError),
        (KafkaError._UNKNOWN_BROKER, TransientLogError),
        (KafkaError._WAIT_CACHE, TransientLogError),
        (KafkaError.FETCH_SESSION_ID_NOT_FOUND, TransientLogError),
        (KafkaError.LISTENER_NOT_FOUND, TransientLogError),
        (KafkaError.MEMBER_ID_REQUIRED, TransientLogError),
        (KafkaError.PREFERRED_LEADER_NOT_AVAILABLE, TransientLogError),
        (KafkaError.REASSIGNMENT_IN_PROGRESS, TransientLogError),
        (KafkaError.REBOOTSTRAP_REQUIRED, TransientLogError),
        (KafkaError.STALE_BROKER_EPOCH, TransientLogError),
        (KafkaError._LOG_TRUNCATION, FatalLogError),
        (KafkaError._FENCED, FatalLogError),
        (KafkaError._INVALID_ARG, FatalLogError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, FatalLogError),
        (KafkaError.GROUP_MAX_SIZE_REACHED, FatalLogError),
        (KafkaError.INVALID_SESSION_TIMEOUT, FatalLogError),
        (KafkaError.UNSUPPORTED_VERSION, FatalLogError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, TopicMissing),
        (KafkaError._UNKNOWN_TOPIC, TopicMissing),
        (KafkaError._AUTO_OFFSET_RESET, OffsetOutOfRange),
        (KafkaError.OFFSET_OUT_OF_RANGE, OffsetOutOfRange),
        (KafkaError.MSG_SIZE_TOO_LARGE, RecordTooLarge),
        (KafkaError.RECORD_LIST_TOO_LARGE, RecordTooLarge),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, FatalLogError),
        (KafkaError._AUTHENTICATION, FatalLogError),
        (KafkaError.FENCED_INSTANCE_ID, FatalLogError),
        (KafkaError._UNKNOWN_PARTITION, TransientLogError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else KafkaError(value).name(),
)
def test_an_error_is_sorted_by_what_follows(code: int, expected: type[EventLogError]) -> None:
    error = error_from_kafka(KafkaError(code), topic="uploads", partition=3)
    assert type(error) is expected


def test_a_fatal_error_is_fatal_whatever_its_code() -> None:
    error = KafkaError(KafkaError._TRANSPORT, "gone", fatal=True)
    assert type(error_from_kafka(error)) is FatalLogError


def test_a_missing_topic_and_an_out_of_range_position_say_where() -> None:
    missing = error_from_kafka(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), topic="uploads")
    outside = error_from_kafka(KafkaError(KafkaError.OFFSET_OUT_OF_RANGE), topic="uploads", partition=3)
    assert isinstance(missing, TopicMissing)
    assert missing.topic == "uploads"
    assert isinstance(outside, OffsetOutOfRange)
    assert (outside.topic, outside.partition) == ("uploads", 3)


def test_what_kafka_raises_is_raised_as_ours_with_its_cause() -> None:
    kafka = KafkaException(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    with pytest.raises(TransientLogError, match="_TRANSPORT: connection refused") as caught:
        with mapped_kafka_errors():
            raise kafka
    assert caught.value.__cause__ is kafka


def test_other_exceptions_pass_the_door_unchanged() -> None:
    with pytest.raises(KeyError), mapped_kafka_errors():
        raise KeyError("ours")
