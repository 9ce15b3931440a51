"""What only the in-memory log can do: faults, gaps, and expelling members."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from event_log.errors import RecordTooLarge, TopicMissing, TransientLogError
from event_log.memory.clients import MemoryLog, MemoryPublisher, MemoryRecordSource
from event_log.memory.group import balance
from event_log.memory.log import Operation
from tests.event_log.event_logs import Reader, numbered


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(max_record_bytes=100, clock=lambda: 1_700_000_000.5)
    log.create_topic("uploads", 2)
    return log


Call = Callable[[MemoryRecordSource], object]


@pytest.mark.parametrize(
    ("operation", "call"),
    [
        pytest.param("poll", lambda source: source.poll(1, 0.0), id="poll"),
        pytest.param("commit", lambda source: source.commit({0: 1}), id="commit"),
        pytest.param("committed", lambda source: source.committed([0]), id="committed"),
        pytest.param("log_range", lambda source: source.log_range(0), id="log_range"),
        pytest.param("describe_topic", lambda source: source.describe_topic("uploads"), id="describe_topic"),
    ],
)
def test_a_fault_is_raised_as_often_as_it_was_ordered(
    log: MemoryLog, operation: Operation, call: Call
) -> None:
    reader = Reader(MemoryRecordSource(log, "group"), "uploads")
    reader.poll()
    log.fail_next(operation, TransientLogError("away"), times=2)
    for _ in range(2):
        with pytest.raises(TransientLogError, match="away"):
            call(reader.source)  # type: ignore[arg-type]
    call(reader.source)  # type: ignore[arg-type]


def test_a_publishing_fault_is_held_by_the_future(log: MemoryLog) -> None:
    publisher = MemoryPublisher(log)
    log.fail_next("publish", TransientLogError("away"))
    with pytest.raises(TransientLogError, match="away"):
        publisher.publish("uploads", key=b"key", value=b"value").result(0)
    assert publisher.publish("uploads", key=b"key", value=b"value").result(0).offset == 0


def test_publishing_to_a_missing_topic_names_it(log: MemoryLog) -> None:
    with pytest.raises(TopicMissing, match="'other'"):
        MemoryPublisher(log).publish("other", key=b"key", value=b"value").result(0)


def test_the_size_limit_counts_key_and_value(log: MemoryLog) -> None:
    log.append("uploads", 0, key=bytes(50), value=bytes(50))
    with pytest.raises(RecordTooLarge, match="101 bytes, at most 100 are allowed"):
        log.append("uploads", 0, key=bytes(51), value=bytes(50))


def test_records_carry_the_logs_time(log: MemoryLog) -> None:
    log.append("uploads", 0, value=b"value")
    reader = Reader(MemoryRecordSource(log, "group"), "uploads")
    reader.poll()
    assert reader.records[0].timestamp_ms == 1_700_000_000_500


def test_a_compacted_gap_is_passed(log: MemoryLog) -> None:
    for value in numbered(5):
        log.append("uploads", 0, value=value)
    for offset in (1, 4):
        log.remove("uploads", 0, offset)
    reader = Reader(MemoryRecordSource(log, "group"), "uploads")
    reader.poll()
    assert reader.offsets == [0, 2, 3]
    assert reader.ends == {0: 5, 1: 0}


def test_reading_starts_inside_a_gap(log: MemoryLog) -> None:
    for value in numbered(6):
        log.append("uploads", 0, value=value)
    for offset in (1, 2, 3):
        log.remove("uploads", 0, offset)
    reader = Reader(MemoryRecordSource(log, "group"), "uploads", {0: 2})
    reader.poll()
    assert reader.offsets == [4, 5]


def test_the_partitions_of_an_expelled_member_go_to_the_others_at_once(log: MemoryLog) -> None:
    expelled = Reader(MemoryRecordSource(log, "group"), "uploads")
    other = Reader(MemoryRecordSource(log, "group"), "uploads")
    expelled.poll_until(lambda: len(other.listener.assigned) == 1, other)
    assert isinstance(expelled.source, MemoryRecordSource)
    expelled.source.expel()
    other.poll()
    assert other.listener.assigned == {0, 1}
    assert len(expelled.listener.assigned) == 1


def test_an_expelled_member_commits_nothing(log: MemoryLog) -> None:
    source = MemoryRecordSource(log, "group")
    Reader(source, "uploads").poll()
    source.expel()
    source.commit({0: 5})
    assert source.committed([0]) == {0: None}


def test_an_expelled_member_that_closes_has_lost_its_partitions(log: MemoryLog) -> None:
    source = MemoryRecordSource(log, "group")
    reader = Reader(source, "uploads")
    reader.poll()
    source.expel()
    source.close()
    assert reader.listener.calls == [("assigned", (0, 1)), ("lost", (0, 1))]


@pytest.mark.parametrize(
    ("target", "members", "expected"),
    [
        pytest.param({}, [7], {0: 7, 1: 7, 2: 7, 3: 7}, id="one member owns all"),
        pytest.param(
            {0: 7, 1: 7, 2: 7, 3: 7}, [7, 8], {0: 7, 1: 7, 2: 8, 3: 8}, id="a late joiner gets half"
        ),
        pytest.param({0: 7, 1: 7, 2: 8, 3: 8}, [8], {0: 8, 1: 8, 2: 8, 3: 8}, id="the last one gets all"),
        pytest.param({0: 7, 1: 8, 2: 7, 3: 8}, [7, 8], {0: 7, 1: 8, 2: 7, 3: 8}, id="balance stays as it is"),
        pytest.param({0: 7, 1: 7}, [], {}, id="nobody owns nothing"),
    ],
)
def test_partitions_are_balanced_with_few_moves(
    target: dict[int, int], members: list[int], expected: dict[int, int]
) -> None:
    assert balance(target, members, 4) == expected
