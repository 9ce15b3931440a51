"""What a consumer on Apache Kafka refuses, with the numbers in its message, and how an operator continues."""

from __future__ import annotations

import os
import re
import shutil
import signal
import uuid
from contextlib import suppress

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from event_log.kafka.admin import KafkaAdmin, TopicCreation
from tests.event_log.event_logs import DEADLINE_SECONDS
from tests.integration.fleet import Fleet, Member
from tests.integration.history import History

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

REFUSED = 3


@pytest.fixture
def fleet(kafka_fleet: Fleet) -> Fleet:
    return kafka_fleet


def index_all(fleet: Fleet, history: History, num_events: int) -> None:
    """Publish and index events, then leave gracefully."""
    history.publish(num_events)
    member = fleet.start()
    history.wait_until_indexed(fleet)
    assert member.stop() == 0


def refusal(member: Member) -> str:
    """Wait for a refusal and return its message."""
    assert member.wait() == REFUSED, member.said
    return member.said.splitlines()[-1]


def admin_of(fleet: Fleet) -> AdminClient:
    return AdminClient({"bootstrap.servers": fleet.kafka.bootstrap_servers})


def delete_records(fleet: Fleet, first_offsets: dict[int, int]) -> None:
    places = [TopicPartition(fleet.topic, number, offset) for number, offset in first_offsets.items()]
    admin = admin_of(fleet)  # its requests end with the process
    for future in admin.delete_records(places).values():
        future.result(DEADLINE_SECONDS)


def add_partitions(fleet: Fleet, num_partitions: int) -> None:
    admin = admin_of(fleet)
    for future in admin.create_partitions([NewPartitions(fleet.topic, num_partitions)]).values():
        future.result(DEADLINE_SECONDS)
    described = KafkaAdmin(fleet.kafka)
    fleet.wait(lambda: described.describe_topic(fleet.topic).num_partitions == num_partitions)


def recreate_topic(fleet: Fleet) -> None:
    admin = KafkaAdmin(fleet.kafka)
    old = admin.describe_topic(fleet.topic)
    admin.delete_topic(fleet.topic)
    creation = TopicCreation(old.num_partitions)
    fleet.wait(lambda: admin.create_topic(fleet.topic, creation).topic_id != old.topic_id)


def link_what_stays(source: str, target: str) -> None:
    """Copy with hard links like `cp -al`, which also skips a temporary file that has vanished."""
    with suppress(FileNotFoundError):
        os.link(source, target)


def publish_transaction(fleet: Fleet, history: History, *, is_committed: bool) -> None:
    producer = Producer(
        {
            "bootstrap.servers": fleet.kafka.bootstrap_servers,
            "transactional.id": uuid.uuid4().hex,
            "partitioner": "murmur2_random",
        }
    )
    producer.init_transactions(DEADLINE_SECONDS)
    producer.begin_transaction()
    for event in history.next_encoded(40, is_published=is_committed):
        producer.produce(fleet.topic, key=event.key, value=event.value)
    assert producer.flush(DEADLINE_SECONDS) == 0
    end = producer.commit_transaction if is_committed else producer.abort_transaction
    end(DEADLINE_SECONDS)


@pytest.mark.parametrize("is_committed", [True, False], ids=["committed", "aborted"])
def test_a_log_that_ends_in_transaction_markers_is_caught_up(
    fleet: Fleet, history: History, is_committed: bool
) -> None:
    history.publish(40)
    publish_transaction(fleet, history, is_committed=is_committed)
    fleet.wait(lambda: all(log.next_offset > history.ends[n] for n, log in enumerate(fleet.log_ranges())))
    ends = {number: log.next_offset for number, log in enumerate(fleet.log_ranges())}
    member = fleet.start()
    fleet.wait(lambda: fleet.next_offsets() == ends)
    history.wait_until_indexed(fleet)
    assert member.stop() == 0
    assert fleet.group_offsets() == ends


def test_another_index_root_in_the_same_group_is_refused(fleet: Fleet, history: History) -> None:
    history.publish(200)
    rightful = fleet.start()
    history.wait_until_indexed(fleet)
    elsewhere = fleet.folder / "elsewhere"
    sentence = refusal(fleet.start(root=elsewhere))
    partition = int(sentence.split(":")[1].rsplit("-", 1)[1])
    at = history.ends[partition]
    assert f"the consumer group is at {at} but the index goes on at 0" in sentence
    assert "CLIPTIDE_CONSUMER__ACCEPT_REWIND" in sentence
    history.publish(100)
    history.wait_until_indexed(fleet)
    assert rightful.stop() == 0
    assert fleet.num_encoded == history.num_uploads


def test_a_restored_backup_is_refused_until_the_rewind_is_accepted(fleet: Fleet, history: History) -> None:
    history.publish(100)
    member = fleet.start()
    history.wait_until_indexed(fleet)
    backup = fleet.folder / "backup"
    shutil.copytree(fleet.root, backup, copy_function=link_what_stays)  # while the consumer runs
    behind = fleet.next_offsets()
    history.publish(100)
    history.wait_until_indexed(fleet)
    assert member.stop() == 0
    fleet.replace_index(backup)
    sentence = refusal(fleet.start())
    assert any(f"is at {history.ends[p]} but the index goes on at {behind[p]}" in sentence for p in behind)
    accepting = fleet.start("--accept-rewind")
    history.wait_until_indexed(fleet)
    assert accepting.stop() == 0
    index_all(fleet, history, 10)


def test_records_that_are_gone_are_refused_until_the_loss_is_accepted(fleet: Fleet, history: History) -> None:
    index_all(fleet, history, 200)
    behind = fleet.next_offsets()
    history.publish(200)
    first_offsets = {number: behind[number] + 10 for number in behind}
    delete_records(fleet, first_offsets)
    sentence = refusal(fleet.start())
    partition = int(sentence.split(":")[1].rsplit("-", 1)[1])
    assert f"goes on at {behind[partition]} but the log begins at {behind[partition] + 10}" in sentence
    assert "10 offsets are gone" in sentence
    accepting = fleet.start("--accept-data-loss")
    fleet.wait(lambda: fleet.next_offsets() == history.ends)
    assert accepting.stop() == 0


def test_records_that_retention_removes_before_they_are_read_stop_a_running_consumer(
    fleet: Fleet, history: History
) -> None:
    """The member is suspended, but its session lasts, while records are published and removed."""
    member = fleet.start_static("sleeper")
    history.publish(100)
    history.wait_until_indexed(fleet)
    behind = fleet.next_offsets()
    member.send(signal.SIGSTOP)
    for _ in range(5):
        history.publish(1)  # a fetch that is still open may return one of these
    history.publish(200)
    delete_records(fleet, history.ends)
    member.send(signal.SIGCONT)
    sentence = refusal(member)
    found = re.search(r"-(\d): at (\d+), but the log holds \[(\d+), (\d+)\)", sentence)
    assert found is not None, sentence
    partition, position, first, end = map(int, found.groups())
    assert behind[partition] <= position < first == end == history.ends[partition]
    accepting = fleet.start_static("sleeper", "--accept-data-loss")
    fleet.wait(lambda: fleet.next_offsets() == history.ends)
    assert accepting.stop() == 0


def test_an_index_of_a_topic_with_fewer_partitions_is_refused(fleet: Fleet, history: History) -> None:
    index_all(fleet, history, 40)
    add_partitions(fleet, 6)
    assert "num_partitions 4 (now 6)" in refusal(fleet.start())


def test_partitions_added_under_a_running_fleet_are_refused_by_every_member(
    fleet: Fleet, history: History
) -> None:
    history.publish(40)
    members = [fleet.start(), fleet.start()]
    fleet.wait_for_owners(*members)
    add_partitions(fleet, 6)
    assert all("with 4 partitions" in refusal(m) and "with 6" in refusal(m) for m in members)
    assert fleet.num_shards == 4


def test_an_index_of_a_topic_that_was_recreated_is_refused(fleet: Fleet, history: History) -> None:
    index_all(fleet, history, 40)
    recreate_topic(fleet)
    assert "topic_id" in refusal(fleet.start())


def test_a_topic_recreated_under_a_running_consumer_is_not_read_on(fleet: Fleet, history: History) -> None:
    history.publish(100)
    member = fleet.start()
    history.wait_until_indexed(fleet)
    recreate_topic(fleet)
    History(fleet.kafka, fleet.topic).publish(400)
    code = member.wait()
    said = member.said.splitlines()[-1]
    seen_missing = code == 5 and "does not exist" in said
    seen_anew = code == REFUSED and "topic id" in said
    seen_short = code == REFUSED and is_beyond_a_recreated_log(said, history.ends)
    assert seen_missing or seen_anew or seen_short, said


def is_beyond_a_recreated_log(sentence: str, positions: dict[int, int]) -> bool:
    """Return whether a consumer reports an offset that the new log has not reached yet."""
    found = re.search(r"-(\d): at (\d+), but the log holds \[0, \d+\).* if the topic was recreated", sentence)
    return found is not None and int(found[2]) == positions[int(found[1])]
