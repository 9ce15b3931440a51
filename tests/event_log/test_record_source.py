"""What every record source does, whatever log is behind it."""

from __future__ import annotations

import time

import pytest
from confluent_kafka import murmur2
from structlog.testing import capture_logs

from event_log.errors import OffsetOutOfRange, TopicMissing, TransientLogError
from event_log.kafka.settings import KafkaSettings
from event_log.records import EndOfPartition, LogRange
from tests.event_log.event_logs import (
    DEADLINE_SECONDS,
    EventLogUnderTest,
    OnBroker,
    Reader,
    RecordingListener,
    numbered,
    wait_until,
)
from tests.event_log.raw_producing import produce_with_header


def test_a_record_comes_out_as_it_was_published(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    before_ms = int(time.time() * 1000)
    headers = (("content-type", b"avro/binary"), ("content-type", b"twice"), ("nothing", None))
    publisher = event_log.publisher()
    publisher.publish(topic, key=b"key", value=b"\x00\xff", headers=headers).result(DEADLINE_SECONDS)
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 1})
    [record] = reader.records
    assert (record.topic, record.partition, record.offset, record.next_offset) == (topic, 0, 0, 1)
    assert (record.key, record.value, record.headers) == (b"key", b"\x00\xff", headers)
    assert before_ms <= record.timestamp_ms <= int(time.time() * 1000)


NUM_WARMING = 60
"""After so many calls Python specialises the call, and no longer checks whether an exception was left set."""


@pytest.mark.parametrize("name", [b"\xff\xfe", b"trace-\xc3"])
def test_a_header_whose_name_is_no_text_does_not_stop_the_log(
    broker_settings: KafkaSettings, name: bytes
) -> None:
    log = OnBroker(broker_settings)
    topic = log.create_topic()
    publisher = log.publisher()
    for _ in range(NUM_WARMING):
        publisher.publish(topic, key=b"before", value=b"", headers=(("trace", b"7"),)).result(
            DEADLINE_SECONDS
        )
    produce_with_header(
        broker_settings.bootstrap_servers, topic, key=b"key", value=b"value", header=(name, b"x")
    )
    publisher.publish(topic, key=b"behind", value=b"", headers=(("trace", b"8"),)).result(DEADLINE_SECONDS)
    reader = Reader(log.source("group"), topic)
    reader.poll_to_ends({0: NUM_WARMING + 2})
    read = [(record.key, record.value, record.headers) for record in reader.records[NUM_WARMING:]]
    assert read == [(b"key", b"value", ()), (b"behind", b"", (("trace", b"8"),))]
    log.close()


def test_of_many_unreadable_headers_a_few_are_logged(broker_settings: KafkaSettings) -> None:
    log = OnBroker(broker_settings)
    topic = log.create_topic()
    for _ in range(9):
        produce_with_header(
            broker_settings.bootstrap_servers, topic, key=b"key", value=b"", header=(b"\xff", b"x")
        )
    with capture_logs() as lines:
        reader = Reader(log.source("group"), topic)
        reader.poll_to_ends({0: 9})
    said = [(line["record"], line["count"]) for line in lines if "headers" in line["event"]]
    assert said == [(f"{topic}-0@{count - 1}", count) for count in (1, 2, 4, 8)]
    log.close()


def test_a_null_key_and_a_null_value_stay_null(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    publisher.publish(topic, key=b"deleted", value=None).result(DEADLINE_SECONDS)
    publisher.publish(topic, key=None, value=b"").result(DEADLINE_SECONDS)
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 2})
    assert [(r.key, r.value, r.headers) for r in reader.records] == [(b"deleted", None, ()), (None, b"", ())]


def test_reading_starts_where_the_listener_says(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    for partition in (0, 1):
        event_log.append(topic, partition, numbered(10))
    reader = Reader(event_log.source("group"), topic, {0: 7, 1: 10})
    reader.poll_to_ends({0: 10, 1: 10})
    assert [(r.partition, r.offset) for r in reader.records] == [(0, 7), (0, 8), (0, 9)]


def test_an_empty_partition_ends_where_it_begins(event_log: EventLogUnderTest) -> None:
    reader = Reader(event_log.source("group"), event_log.create_topic(3))
    reader.poll_to_ends({0: 0, 1: 0, 2: 0})
    assert reader.records == []


def test_the_end_is_reported_again_after_more_records(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append(topic, 0, numbered(3))
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 3})
    event_log.append(topic, 0, numbered(2))
    reader.poll_to_ends({0: 5})
    assert reader.offsets == [0, 1, 2, 3, 4]


def test_a_log_that_ends_in_transaction_markers_is_caught_up(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append_transaction(topic, 0, numbered(3), is_committed=True)
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 4})
    assert reader.offsets == [0, 1, 2]
    assert reader.source.log_range(0) == LogRange(0, 4)


def test_reading_goes_on_behind_a_transaction_marker(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append_transaction(topic, 0, numbered(2), is_committed=True)
    event_log.append_transaction(topic, 0, numbered(2), is_committed=True)
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 6})
    assert reader.offsets == [0, 1, 3, 4]


def test_a_reader_can_start_at_a_transaction_marker(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append_transaction(topic, 0, numbered(2), is_committed=True)
    reader = Reader(event_log.source("group"), topic, {0: 2})
    reader.poll_to_ends({0: 3})
    assert reader.records == []


def test_an_aborted_transaction_is_passed_unseen(complete_log: EventLogUnderTest) -> None:
    topic = complete_log.create_topic()
    complete_log.append(topic, 0, [b"kept"])
    complete_log.append_transaction(topic, 0, numbered(3), is_committed=False)
    reader = Reader(complete_log.source("group"), topic)
    reader.poll_to_ends({0: 5})
    assert reader.values == [b"kept"]


def test_records_of_an_open_transaction_are_in_the_log_and_held_back(complete_log: EventLogUnderTest) -> None:
    topic = complete_log.create_topic()
    complete_log.append(topic, 0, [b"before"])
    commit = complete_log.open_transaction(topic, 0, numbered(2))
    complete_log.append(topic, 0, [b"behind"])
    reader = Reader(complete_log.source("group"), topic)
    reader.poll_to_ends({0: 1})
    assert reader.source.log_range(0) == LogRange(0, 4, held_back_from=1)
    assert reader.source.log_range(0).num_held_back == 3
    commit()
    reader.poll_to_ends({0: 5})
    assert reader.values == [b"before", *numbered(2), b"behind"]
    assert reader.source.log_range(0) == LogRange(0, 5)


def test_an_empty_poll_ends_at_its_timeout(event_log: EventLogUnderTest) -> None:
    reader = Reader(event_log.source("group"), event_log.create_topic())
    is_undisturbed = False
    while not is_undisturbed:  # if the machine stalls, the member is expelled and reads the end again
        reader.poll_to_ends({0: 0})
        reader.ends, num_calls = {}, len(reader.listener.calls)
        started = time.monotonic()
        reader.poll(10, 0.3)
        is_undisturbed = len(reader.listener.calls) == num_calls
    assert (reader.records, reader.ends) == ([], {})
    assert time.monotonic() - started > 0.25


def test_a_poll_answers_as_soon_as_one_record_is_there(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append(topic, 0, [b"waiting"])
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 1})
    event_log.append(topic, 0, [b"new"])
    started = time.monotonic()
    reader.poll(max_records=500, timeout_seconds=60.0)
    assert reader.values == [b"waiting", b"new"]
    assert time.monotonic() - started < 30.0


def test_a_poll_returns_no_more_than_it_was_asked_for(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append(topic, 0, numbered(20))
    reader = Reader(event_log.source("group"), topic)
    polled: list[int] = []

    def poll_seven() -> bool:
        before = len(reader.records)
        reader.poll(max_records=7)
        polled.append(len(reader.records) - before)
        return reader.ends == {0: 20}

    wait_until(poll_seven)
    assert max(polled) <= 7
    assert reader.offsets == list(range(20))


def test_a_record_of_ten_mebibytes_comes_through(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    value = b"\xff\xd8" * (5 * 1024 * 1024)
    publisher = event_log.publisher()
    for _ in range(3):
        publisher.publish(topic, key=b"photo", value=value)
    assert publisher.flush(DEADLINE_SECONDS) == 0
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 3})
    assert [record.value == value for record in reader.records] == [True, True, True]


def test_a_paused_partition_rests_while_the_others_go_on(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 0, 1: 0})
    reader.source.pause([0])
    for partition in (0, 1):
        event_log.append(topic, partition, numbered(5))
    reader.poll_until(lambda: reader.ends[1] == 5)
    assert {record.partition for record in reader.records} == {1}
    reader.source.resume([0])
    reader.poll_to_ends({0: 5, 1: 5})
    assert [r.offset for r in reader.records if r.partition == 0] == [0, 1, 2, 3, 4]


def test_pausing_between_two_polls_leaves_no_gap(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append(topic, 0, numbered(30))
    reader = Reader(event_log.source("group"), topic)

    def poll_pause_resume() -> bool:
        before = len(reader.records)
        reader.poll(max_records=4)
        if len(reader.records) > before:
            reader.source.pause([0])
            reader.source.resume([0])
        return reader.ends == {0: 30}

    wait_until(poll_pause_resume)
    assert reader.offsets == list(range(30))


def test_a_group_without_commits_has_no_committed_offsets(event_log: EventLogUnderTest) -> None:
    reader = Reader(event_log.source("group-without"), event_log.create_topic(2))
    reader.poll_to_ends({0: 0, 1: 0})
    assert reader.source.committed([0, 1]) == {0: None, 1: None}


def test_a_committed_offset_outlives_its_member(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    event_log.append(topic, 0, numbered(5))
    first = Reader(event_log.source("group"), topic)
    first.poll_to_ends({0: 5, 1: 0})
    first.source.commit({0: 4})
    first.source.close()
    second = Reader(event_log.source("group"), topic, {0: 4})
    second.poll_to_ends({0: 5, 1: 0})
    assert second.source.committed([0, 1]) == {0: 4, 1: None}


def test_the_range_of_a_log_is_half_open(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    event_log.append(topic, 0, numbered(3))
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 3, 1: 0})
    assert reader.source.log_range(0) == LogRange(0, 3)
    assert reader.source.log_range(1) == LogRange(0, 0)


def test_a_log_ends_nowhere_before_what_was_read_of_it(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    publisher = event_log.publisher()
    for _ in range(200):
        publisher.publish(topic, key=b"key", value=b"value")
    assert publisher.flush(DEADLINE_SECONDS) == 0
    reader = Reader(event_log.source("group"), topic)
    for num_read in (1, 2, 199):
        wait_until(lambda read=num_read: _poll_one(reader) >= read)  # type: ignore[misc]
        assert reader.source.log_range(0).next_offset > num_read
    reader.poll_to_ends({0: 200})
    assert reader.source.log_range(0) == LogRange(0, 200)


def test_a_truncated_log_begins_later(complete_log: EventLogUnderTest) -> None:
    topic = complete_log.create_topic()
    complete_log.append(topic, 0, numbered(6))
    complete_log.truncate(topic, 0, 4)
    reader = Reader(complete_log.source("group"), topic, {0: 4})
    reader.poll_to_ends({0: 6})
    assert reader.source.log_range(0) == LogRange(4, 6)
    assert reader.offsets == [4, 5]


@pytest.mark.parametrize(
    "position", [pytest.param(1, id="below the log's start"), pytest.param(99, id="above the log's end")]
)
def test_a_position_outside_the_log_is_out_of_range(complete_log: EventLogUnderTest, position: int) -> None:
    topic = complete_log.create_topic()
    complete_log.append(topic, 0, numbered(6))
    complete_log.truncate(topic, 0, 4)
    reader = Reader(complete_log.source("group"), topic, {0: position})
    with pytest.raises(OffsetOutOfRange) as caught:
        reader.poll_until(lambda: bool(reader.records))
    assert (caught.value.topic, caught.value.partition) == (topic, 0)


def test_a_log_that_refused_a_position_is_asked_anew_where_it_ends(complete_log: EventLogUnderTest) -> None:
    """The positions that were read of a topic are not valid for a new topic of the same name."""
    topic = complete_log.create_topic()
    complete_log.append(topic, 0, numbered(6))
    reader = Reader(complete_log.source("group"), topic)
    reader.poll_to_ends({0: 6})
    complete_log.create_again(topic)
    complete_log.append(topic, 0, numbered(2))
    with pytest.raises(OffsetOutOfRange):
        reader.poll_until(lambda: len(reader.records) > 6)
    assert reader.source.log_range(0) == LogRange(0, 2)


def test_a_topic_is_described_by_id_and_partition_count(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(3)
    described = event_log.source("group").describe_topic(topic)
    assert (described.name, described.num_partitions) == (topic, 3)
    assert described.topic_id


def test_a_recreated_topic_has_another_id(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    source = event_log.source("group")
    before = source.describe_topic(topic)
    event_log.create_again(topic)
    after = source.describe_topic(topic)
    assert after.num_partitions == before.num_partitions == 2
    assert after.topic_id != before.topic_id


def test_describing_a_missing_topic_names_it(event_log: EventLogUnderTest) -> None:
    with pytest.raises(TopicMissing, match="'no-such-topic'"):
        event_log.source("group").describe_topic("no-such-topic")


def test_reading_a_missing_topic_names_it(event_log: EventLogUnderTest) -> None:
    reader = Reader(event_log.source("group"), "no-such-topic")
    with pytest.raises(TopicMissing, match="'no-such-topic'"):
        reader.poll_until(lambda: bool(reader.records))


def test_two_groups_each_read_everything(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append(topic, 0, numbered(4))
    for group in ("one", "other"):
        reader = Reader(event_log.source(group), topic)
        reader.poll_to_ends({0: 4})
        assert reader.offsets == [0, 1, 2, 3]


@pytest.mark.parametrize("num_members", [2, 3])
def test_members_share_the_partitions(event_log: EventLogUnderTest, num_members: int) -> None:
    topic = event_log.create_topic(4)
    readers = [Reader(event_log.source("group"), topic) for _ in range(num_members)]
    readers[0].poll_until(lambda: _is_shared(readers, 4), *readers[1:])
    sizes = sorted(len(reader.listener.assigned) for reader in readers)
    assert sizes == {2: [2, 2], 3: [1, 1, 2]}[num_members]


def test_nothing_is_lost_or_read_twice_while_members_come_and_go(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(4)
    publisher = event_log.publisher()
    checkpoint: dict[int, int] = {}
    first = Reader(event_log.source("group"), topic, checkpoint)
    first.poll_until(lambda: len(first.listener.assigned) == 4)
    for number in range(300):
        publisher.publish(topic, key=str(number).encode(), value=b"early")
    second = Reader(event_log.source("group"), topic, checkpoint)
    first.poll_until(lambda: _is_shared([first, second], 4), second)
    for number in range(300, 600):
        publisher.publish(topic, key=str(number).encode(), value=b"late")
    assert publisher.flush(DEADLINE_SECONDS) == 0
    first.source.close()
    second.poll_until(lambda: len(first.records) + len(second.records) >= 600)
    keys = [record.key for record in first.records + second.records]
    assert sorted(int(key or b"-1") for key in keys) == list(range(600))


def test_a_cooperative_rebalance_moves_only_what_must_move(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(4)
    first = Reader(event_log.source("group"), topic)
    first.poll_until(lambda: len(first.listener.assigned) == 4)
    second = Reader(event_log.source("group"), topic)
    first.poll_until(lambda: _is_shared([first, second], 4), second)
    calls = first.listener.calls + second.listener.calls  # a reader that was expelled comes last
    [revoked] = [partitions for call, partitions in calls if call == "revoked"]
    assert len(revoked) == 2


def test_records_carry_the_epoch_of_their_partitions_assignment(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    for partition in (0, 1):
        event_log.append(topic, partition, numbered(2))
    checkpoint: dict[int, int] = {}
    first = Reader(event_log.source("group"), topic, checkpoint)
    first.poll_to_ends({0: 2, 1: 2})
    second = Reader(event_log.source("group"), topic, checkpoint)
    first.poll_until(lambda: _is_shared([first, second], 2), second)
    second.source.close()
    first.poll_until(lambda: len(first.listener.assigned) == 2)
    first.records.clear()
    for partition in (0, 1):
        event_log.append(topic, partition, [b"after"])
    first.poll_until(lambda: len(first.records) == 2)
    epochs = {record.partition: record.assignment_epoch for record in first.records}
    assert epochs == first.listener.epoch_of
    assert first.listener.epochs == sorted(set(first.listener.epochs))


def test_a_paused_partition_that_left_and_came_back_is_read(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    first = Reader(event_log.source("group"), topic)
    first.poll_until(lambda: len(first.listener.assigned) == 2)
    first.source.pause([0, 1])
    second = Reader(event_log.source("group"), topic)
    first.poll_until(lambda: _is_shared([first, second], 2), second)
    [moved] = second.listener.assigned
    second.source.close()
    first.poll_until(lambda: len(first.listener.assigned) == 2)
    event_log.append(topic, moved, [b"new"])
    first.poll_until(lambda: first.values == [b"new"])


def test_closing_revokes_what_is_assigned(event_log: EventLogUnderTest) -> None:
    reader = Reader(event_log.source("group"), event_log.create_topic(3))
    reader.poll_until(lambda: len(reader.listener.assigned) == 3)
    reader.source.close()
    assert reader.listener.calls == [("assigned", (0, 1, 2)), ("revoked", (0, 1, 2))]


def test_nobody_waits_for_a_member_that_closed_while_it_joined(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    leaving = Reader(event_log.source("group"), topic)
    leaving.poll(timeout_seconds=0.5)  # the embedded broker takes longer to answer a join
    leaving.source.close()
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 0, 1: 0})


def test_a_member_that_closes_before_it_polled_takes_no_partition(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    leaving = Reader(event_log.source("group"), topic)
    leaving.source.close()
    assert leaving.listener.calls == []


def test_a_stalled_member_loses_its_partitions_and_joins_again(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    stalled = Reader(event_log.stalling_source("group"), topic)
    stalled.poll_until(lambda: len(stalled.listener.assigned) == 2)
    num_calls = len(stalled.listener.calls)  # more than one if the machine stalled meanwhile
    event_log.stall(stalled.source, "group")
    stalled.poll_until(lambda: len(stalled.listener.calls) == num_calls + 2)
    assert stalled.listener.calls[num_calls - 1 :] == [
        ("assigned", (0, 1)),
        ("lost", (0, 1)),
        ("assigned", (0, 1)),
    ]


def test_what_the_listener_raises_at_an_assignment_comes_out_of_poll(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    event_log.append(topic, 0, numbered(3))
    reader = Reader(event_log.source("group"), topic)
    reader.listener.fail_on["assigned"] = TransientLogError("the shard is busy")
    with pytest.raises(TransientLogError, match="the shard is busy"):
        reader.poll_until(lambda: bool(reader.records))
    for _ in range(10):
        reader.poll()
    assert reader.records == []
    reader.source.close()
    assert reader.listener.calls == [("assigned", (0,))]


def test_what_the_listener_raises_at_a_revoke_comes_out_of_close(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic()
    reader = Reader(event_log.source("group"), topic)
    reader.poll_to_ends({0: 0})
    reader.listener.fail_on["revoked"] = OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        reader.source.close()
    heir = Reader(event_log.source("group"), topic)
    heir.poll_to_ends({0: 0})


def test_a_listener_that_fails_at_a_revoke_costs_no_record(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(2)
    checkpoint: dict[int, int] = {}
    first = Reader(event_log.source("group"), topic, checkpoint)
    first.poll_until(lambda: len(first.listener.assigned) == 2)
    first.listener.fail_on = dict.fromkeys(["revoked", "lost"], OSError("disk full"))
    for partition in (0, 1):
        event_log.append(topic, partition, numbered(50))
    second = Reader(event_log.source("group"), topic, checkpoint)
    with pytest.raises(OSError, match="disk full"):
        first.poll_until(lambda: len(second.listener.assigned) == 1, second)
    first.listener.fail_on.clear()
    first.poll_until(lambda: len(first.records) + len(second.records) >= 100, second)
    read = sorted((record.partition, record.offset) for record in first.records + second.records)
    assert read == [(partition, offset) for partition in (0, 1) for offset in range(50)]


def test_a_key_lies_where_every_kafka_client_would_put_it(event_log: EventLogUnderTest) -> None:
    topic = event_log.create_topic(4)
    publisher = event_log.publisher()
    for number in range(40):
        publisher.publish(topic, key=b"content-%d" % number, value=b"")
    assert publisher.flush(DEADLINE_SECONDS) == 0
    reader = Reader(event_log.source("group"), topic)
    reader.poll_until(lambda: len(reader.records) == 40)
    assert all(r.partition == murmur2(r.key or b"", 4) for r in reader.records)


def _poll_one(reader: Reader) -> int:
    reader.poll(max_records=1)
    return len(reader.records)


def _is_shared(readers: list[Reader], num_partitions: int) -> bool:
    """Each partition has exactly one owner, and every reader has one."""
    owned = [partition for reader in readers for partition in reader.listener.assigned]
    return sorted(owned) == list(range(num_partitions)) and all(r.listener.assigned for r in readers)


def test_partitions_that_are_assigned_are_read_without_joining_a_group(event_log: EventLogUnderTest) -> None:
    """A member of the group keeps its partitions meanwhile."""
    topic = event_log.create_topic(2)
    for partition in range(2):
        event_log.append(topic, partition, numbered(3))
    member = Reader(event_log.source("group"), topic)
    member.poll_to_ends({0: 3, 1: 3})
    source, listener = event_log.source("group"), RecordingListener({1: 2})
    source.assign(topic, [0, 1], listener)
    read: list[tuple[int, int]] = []
    ends: set[int] = set()

    def poll() -> bool:
        for event in source.poll(100, 0.1):
            if isinstance(event, EndOfPartition):
                ends.add(event.partition)
            else:
                read.append((event.partition, event.offset))
        return ends == {0, 1}

    wait_until(poll)
    source.close()
    assert sorted(read) == [(0, 0), (0, 1), (0, 2), (1, 2)]
    assert listener.calls == [("assigned", (0, 1))]
    member.poll()
    assert member.listener.calls == [("assigned", (0, 1))]
