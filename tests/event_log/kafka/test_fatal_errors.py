"""A fatal error of an idempotent producer fails what is queued, and the next record is published."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from confluent_kafka import KafkaError

from event_log.errors import FatalLogError
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from tests.event_log.event_logs import DEADLINE_SECONDS
from tests.event_log.kafka.mock_cluster import INIT_PRODUCER_ID, PRODUCE, MockCluster


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        yield cluster


@pytest.fixture
def publisher(cluster: MockCluster) -> Iterator[KafkaPublisher]:
    with closing(KafkaPublisher(KafkaSettings(cluster.bootstrap_servers))) as publisher:
        yield publisher


def offset_of(publisher: KafkaPublisher) -> int:
    return publisher.publish("uploads", key=b"key", value=b"value").result(DEADLINE_SECONDS).offset


def test_a_producer_that_may_not_be_idempotent_fails_what_is_queued_and_tries_again_with_the_next_record(
    cluster: MockCluster, publisher: KafkaPublisher
) -> None:
    cluster.answer(INIT_PRODUCER_ID, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    futures = [publisher.publish("uploads", key=b"key", value=b"value") for _ in range(3)]
    for future in futures:
        with pytest.raises(FatalLogError, match="CLUSTER_AUTHORIZATION_FAILED"):
            future.result(DEADLINE_SECONDS)
    assert offset_of(publisher) == 0


def test_a_producer_that_lost_count_with_the_broker_fails_what_is_queued_and_is_replaced(
    cluster: MockCluster, publisher: KafkaPublisher
) -> None:
    assert offset_of(publisher) == 0
    cluster.answer(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
    with pytest.raises(FatalLogError, match="OUT_OF_ORDER_SEQUENCE_NUMBER"):
        offset_of(publisher)
    assert offset_of(publisher) == 1


def test_a_flush_and_a_close_after_a_fatal_error_come_back_and_leave_no_future_open(
    cluster: MockCluster,
) -> None:
    publisher = KafkaPublisher(KafkaSettings(cluster.bootstrap_servers))
    cluster.answer(INIT_PRODUCER_ID, *[KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 2)
    futures = [publisher.publish("uploads", key=b"key", value=b"value") for _ in range(3)]
    assert publisher.flush(DEADLINE_SECONDS) == 0
    publisher.close()
    assert all(future.done() for future in futures)
