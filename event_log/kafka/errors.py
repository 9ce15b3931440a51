"""Turns the errors of confluent_kafka into those of `event_log.errors`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from event_log.errors import (
    EventLogError,
    FatalLogError,
    OffsetOutOfRange,
    RecordRefused,
    RecordTooLarge,
    RecordUnreadable,
    TopicMissing,
    TransientLogError,
)

_MISSING_TOPIC = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_ID}
)
_OUT_OF_RANGE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
# librdkafka marks only producer errors as retriable, so the others are listed here: what it says of its own
# connections, handles and caches, and what Apache Kafka's own client calls retriable.
_TRANSIENT = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._DESTROY,
        KafkaError._DESTROY_BROKER,
        KafkaError._FAIL,
        KafkaError._IN_PROGRESS,
        KafkaError._INTR,
        KafkaError._ISR_INSUFF,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._NOENT,  # of `list_offsets`: no leader is known while no broker answers
        KafkaError._NODE_UPDATE,
        KafkaError._OUTDATED,
        KafkaError._PARTIAL,
        KafkaError._PREV_IN_PROGRESS,
        KafkaError._PURGE_INFLIGHT,
        KafkaError._PURGE_QUEUE,
        KafkaError._QUEUE_FULL,
        KafkaError._RESOLVE,
        KafkaError._RETRY,
        KafkaError._SSL,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._TRANSPORT,
        KafkaError._UNKNOWN_BROKER,
        KafkaError._UNKNOWN_PARTITION,  # also raised when no broker answers and so no leader is known
        KafkaError._WAIT_CACHE,
        KafkaError._WAIT_COORD,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.CONCURRENT_TRANSACTIONS,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.ELIGIBLE_LEADERS_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.FETCH_SESSION_ID_NOT_FOUND,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.INCONSISTENT_TOPIC_ID,
        KafkaError.INVALID_FETCH_SESSION_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.LISTENER_NOT_FOUND,
        KafkaError.MEMBER_ID_REQUIRED,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_CONTROLLER,
        KafkaError.NOT_COORDINATOR,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.PREFERRED_LEADER_NOT_AVAILABLE,
        KafkaError.REASSIGNMENT_IN_PROGRESS,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.REBOOTSTRAP_REQUIRED,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.STALE_BROKER_EPOCH,
        KafkaError.STALE_CTRL_EPOCH,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.THROTTLING_QUOTA_EXCEEDED,
        KafkaError.TRANSACTION_COORDINATOR_FENCED,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.UNRELEASED_INSTANCE_ID,
        KafkaError.UNSTABLE_OFFSET_COMMIT,
    }
)


def error_from_kafka(error: KafkaError, *, topic: str = "", partition: int = -1) -> EventLogError:
    """Sort a Kafka error by what the caller does next. Unknown errors count as fatal."""
    text = f"{error.name()}: {error.str()}"
    code = error.code()
    if error.fatal():
        return FatalLogError(text)
    if code in _MISSING_TOPIC:
        return TopicMissing(topic)
    if code in _OUT_OF_RANGE:
        return OffsetOutOfRange(topic, partition, text)
    if code in _TOO_LARGE:
        return RecordTooLarge(text)
    if code == KafkaError.INVALID_RECORD:
        return RecordRefused(text)
    if code in _TRANSIENT or error.retriable():
        return TransientLogError(text)
    return FatalLogError(text)


_LARGER = "raise receive.message.max.bytes and fetch.message.max.bytes in CLIPTIDE_KAFKA__PROPERTIES"
_GONE = (
    "if it cannot be restored, delete the partition's records up to it (kafka-delete-records) and start "
    "once with --accept-data-loss"
)
_WAYS_ON = {
    KafkaError._BAD_COMPRESSION: f"it may inflate to more than receive.message.max.bytes: {_LARGER}; {_GONE}",
    KafkaError.MSG_SIZE_TOO_LARGE: f"{_LARGER}; {_GONE}",
    KafkaError._BAD_MSG: _GONE,
    KafkaError._NOT_IMPLEMENTED: _GONE,
    KafkaError._UNDERFLOW: _GONE,
    KafkaError.INVALID_MSG: _GONE,
    KafkaError.INVALID_MSG_SIZE: _GONE,
    KafkaError.UNSUPPORTED_COMPRESSION_TYPE: _GONE,
}
"""What an operator does when librdkafka reports one of these while it reads a partition."""


def error_of_record(error: KafkaError, *, topic: str, partition: int, offset: int) -> RecordUnreadable | None:
    """Return the error if it is about what lies at this position, and not about the connection."""
    way_on = _WAYS_ON.get(error.code())
    if way_on is None or partition < 0 or offset < 0 or error.fatal():
        return None
    return RecordUnreadable(topic, partition, offset, f"{error.name()}: {error.str()}", way_on=way_on)


@contextmanager
def mapped_kafka_errors(*, topic: str = "", partition: int = -1) -> Iterator[None]:
    """Raise a Kafka error of the block as an `EventLogError`."""
    try:
        yield
    except KafkaException as error:
        raise error_from_kafka(error.args[0], topic=topic, partition=partition) from error
