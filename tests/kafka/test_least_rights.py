"""The rights of deploy/kubernetes are enough for each process on Apache Kafka, and allow nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)

from cliptide.dead_letters.reading import TopicScan
from event_log.errors import EventLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.publisher import KafkaPublisher
from event_log.kafka.settings import KafkaSettings
from event_log.kafka.source import KafkaRecordSource
from tests.event_log.event_logs import DEADLINE_SECONDS, OnBroker, Reader
from tests.kafka.apache_kafka import LIMITED_USERS, ApacheKafka
from tests.kafka.test_refusals_of_kafka import SASL

pytestmark = pytest.mark.kafka
USERS = Path(__file__).parents[2] / "deploy" / "kubernetes" / "overlays" / "production" / "users.yaml"


@dataclass(frozen=True)
class Cluster:
    """A topic, a topic of dead letters and a group, on which each user has its rights."""

    servers: str
    topic: str
    dead_letter_topic: str
    group: str

    def settings(self, user: str) -> KafkaSettings:
        return KafkaSettings(self.servers, {**SASL, "sasl.username": user})

    def client(self, user: str) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.servers, **SASL, "sasl.username": user})


@pytest.fixture
def cluster(apache_kafka: ApacheKafka, unique_name: Callable[[str], str]) -> Cluster:
    on_broker = OnBroker(KafkaSettings(apache_kafka.bootstrap_servers))
    made = Cluster(
        apache_kafka.sasl_servers, on_broker.create_topic(), on_broker.create_topic(), unique_name("group")
    )
    names = {
        "content-uploads": made.topic,
        "content-uploads.dead-letters": made.dead_letter_topic,
        "cliptide-main": made.group,
    }
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap_servers})
    for future in admin.create_acls([*bindings(names)]).values():
        future.result(DEADLINE_SECONDS)
    return made


def bindings(names: Mapping[str, str]) -> Iterator[AclBinding]:
    """Yield the rights of all users, on topics and groups of other names."""
    for user in yaml.safe_load_all(USERS.read_text()):
        for acl in user["spec"]["authorization"]["acls"]:
            for operation in acl["operations"]:
                yield AclBinding(
                    ResourceType[acl["resource"]["type"].upper()],
                    names[acl["resource"]["name"]],
                    ResourcePatternType.LITERAL,
                    f"User:{user['metadata']['name']}",
                    "*",
                    AclOperation[operation.upper()],
                    AclPermissionType.ALLOW,
                )


def publish(cluster: Cluster, user: str, topic: str) -> int:
    publisher = KafkaPublisher(cluster.settings(user))
    try:
        return publisher.publish(topic, key=b"key", value=b"value").result(DEADLINE_SECONDS).next_offset
    finally:
        publisher.close()


def test_every_user_of_the_overlay_is_tried() -> None:
    assert {user["metadata"]["name"] for user in yaml.safe_load_all(USERS.read_text())} == set(LIMITED_USERS)


def test_a_consumer_describes_reads_commits_and_sets_records_aside(cluster: Cluster) -> None:
    assert publish(cluster, "cliptide-query-api", cluster.topic) == 1
    settings = cluster.settings("cliptide-consumer")
    admin = KafkaAdmin(settings)
    assert admin.describe_topic(cluster.topic).num_partitions == 1
    assert admin.describe_topic(cluster.dead_letter_topic).num_partitions == 1
    source = KafkaRecordSource(settings, cluster.group)
    reader = Reader(source, cluster.topic)
    reader.poll_to_ends({0: 1})
    assert reader.values == [b"value"]
    source.commit({0: 1})
    source.close()
    assert publish(cluster, "cliptide-consumer", cluster.dead_letter_topic) == 1
    assert lag(cluster, "cliptide-scaler") == 0


def lag(cluster: Cluster, user: str) -> int:
    """Return the lag of the group, as a scaler reads it."""
    client, place = cluster.client(user), TopicPartition(cluster.topic, 0)
    ends = client.list_offsets({place: OffsetSpec.latest()})  # type: ignore[no-untyped-call]
    asked = ConsumerGroupTopicPartitions(cluster.group, [place])
    committed = client.list_consumer_group_offsets([asked])[cluster.group].result(DEADLINE_SECONDS)
    return int(ends[place].result(DEADLINE_SECONDS).offset) - int(committed.topic_partitions[0].offset)


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        pytest.param("cliptide-consumer", "topic", id="a consumer uploads nothing"),
        pytest.param("cliptide-query-api", "dead_letter_topic", id="a query service sets nothing aside"),
    ],
)
def test_nobody_writes_where_it_has_no_right(cluster: Cluster, user: str, topic: str) -> None:
    with pytest.raises(EventLogError):
        publish(cluster, user, getattr(cluster, topic))


@pytest.mark.parametrize("user", ["cliptide-query-api", "cliptide-scaler"])
def test_nobody_but_the_consumer_reads_the_log(cluster: Cluster, user: str) -> None:
    source = KafkaRecordSource(cluster.settings(user), cluster.group)
    try:
        with pytest.raises(EventLogError):
            Reader(source, cluster.topic).poll_to_ends({0: 1})
    finally:
        source.close()


def test_a_command_that_only_reads_a_topic_needs_no_right_to_a_group(
    cluster: Cluster, unique_name: Callable[[str], str]
) -> None:
    """The consumer may read its topic, and has a right to no group but its own."""
    assert publish(cluster, "cliptide-query-api", cluster.topic) == 1
    source = KafkaRecordSource(cluster.settings("cliptide-consumer"), unique_name("no-right"))
    assert [record.value for record in TopicScan(source, cluster.topic).records()] == [b"value"]
    source.close()


@pytest.mark.parametrize("user", LIMITED_USERS)
def test_nobody_creates_a_topic(cluster: Cluster, unique_name: Callable[[str], str], user: str) -> None:
    name, client = unique_name("topic"), cluster.client(user)
    with pytest.raises(KafkaException, match="AUTHORIZATION_FAILED"):
        client.create_topics([NewTopic(name, 1)])[name].result(DEADLINE_SECONDS)
