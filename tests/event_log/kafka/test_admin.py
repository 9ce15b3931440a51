"""Topics are described, and created if that is allowed; otherwise a missing topic is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from event_log.errors import TopicMissing
from event_log.kafka.admin import KafkaAdmin, TopicCreation
from event_log.kafka.settings import KafkaSettings
from tests.event_log.event_logs import DEADLINE_SECONDS, wait_until

UniqueName = Callable[[str], str]


@pytest.fixture
def admin(broker_settings: KafkaSettings) -> KafkaAdmin:
    return KafkaAdmin(broker_settings, request_timeout_seconds=DEADLINE_SECONDS)


def test_a_missing_topic_is_created_when_that_is_allowed(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    topic = unique_name("uploads")
    creation = TopicCreation(num_partitions=3, config={"max.message.bytes": 12_000_000})
    created = admin.ensure_topic(topic, creation)
    assert (created.name, created.num_partitions) == (topic, 3)
    assert admin.describe_topic(topic) == created


def test_a_missing_topic_is_named_when_creating_is_not_allowed(
    admin: KafkaAdmin, unique_name: UniqueName
) -> None:
    topic = unique_name("uploads")
    with pytest.raises(TopicMissing, match=topic):
        admin.ensure_topic(topic, None)


def test_a_topic_that_exists_stays_as_it_is(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    topic = unique_name("uploads")
    first = admin.create_topic(topic, TopicCreation(num_partitions=2))
    assert admin.create_topic(topic, TopicCreation(num_partitions=5)) == first
    assert admin.ensure_topic(topic, TopicCreation(num_partitions=5)) == first


@pytest.mark.kafka
def test_the_settings_of_a_topic_are_read(kafka_settings: KafkaSettings, unique_name: UniqueName) -> None:
    admin = KafkaAdmin(kafka_settings, request_timeout_seconds=DEADLINE_SECONDS)
    creation = TopicCreation(1, config={"max.message.bytes": 2_000_000, "retention.ms": -1})
    topic = admin.create_topic(unique_name("topic"), creation).name
    settings = admin.topic_settings(topic)
    assert (settings["max.message.bytes"], settings["retention.ms"]) == ("2000000", "-1")
    assert settings["cleanup.policy"] == "delete"
    with pytest.raises(TopicMissing, match="nowhere"):
        admin.topic_settings("nowhere")


def test_a_deleted_topic_is_missing(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    topic = unique_name("uploads")
    admin.create_topic(topic, TopicCreation(num_partitions=1))
    admin.delete_topic(topic)

    def is_missing() -> bool:
        try:
            admin.describe_topic(topic)
        except TopicMissing as error:
            return topic in str(error)
        return False

    wait_until(is_missing)  # the brokers learn of it one after another


def test_deleting_a_missing_topic_names_it(admin: KafkaAdmin, unique_name: UniqueName) -> None:
    topic = unique_name("uploads")
    with pytest.raises(TopicMissing, match=topic):
        admin.delete_topic(topic)
