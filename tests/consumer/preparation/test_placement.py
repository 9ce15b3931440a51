"""Records in another partition than their key belongs to are counted, and the right ones are said."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from consumer.preparation.placement import Placement
from consumer.preparation.steps import PreparationOptions
from event_log.partitioning import partition_from_key
from event_log.records import Record
from schemas.codec import encode_event
from schemas.errors import BadEvent
from schemas.events import DeleteEvent, Event
from tests.consumer.running import TOPIC, World, upload

NUM_PARTITIONS = 3
KEY = b"shoe-1"
HOME = partition_from_key(KEY, NUM_PARTITIONS)
ELSEWHERE = (HOME + 1) % NUM_PARTITIONS


class Count:
    """Implements `MisplacedCounter`."""

    def __init__(self) -> None:
        self.value = 0

    def inc(self) -> None:
        self.value += 1


def delete(content_id: str) -> DeleteEvent:
    event = upload(content_id)
    return DeleteEvent(event.event_id, event.content_id, event.source, event.occurred_at)


def record(partition: int, *, offset: int = 7, key: bytes | None = KEY) -> Record:
    return Record(TOPIC, partition, offset, key, b"", (), 0, 1)


def warnings_of(placement: Placement, *passed: tuple[Record, Event]) -> list[str]:
    with capture_logs() as lines:
        for one, event in passed:
            placement.observe(one)
            placement.check(one, event)
    return [f"{line['event']}: {line['record']}" for line in lines]


def test_a_record_in_its_own_partition_is_neither_counted_nor_said() -> None:
    count = Count()
    placement = Placement(NUM_PARTITIONS, count)
    assert warnings_of(placement, (record(HOME), delete("shoe-1")), (record(HOME), upload("shoe-1"))) == []
    assert count.value == 0


def test_each_misplaced_record_is_counted_and_the_first_one_is_said_with_key_home_and_way_on() -> None:
    count = Count()
    placement = Placement(NUM_PARTITIONS, count)
    with capture_logs() as lines:
        for offset in (7, 8, 9):
            placement.observe(record(ELSEWHERE, offset=offset))
    assert count.value == 3
    [line] = lines
    assert (line["record"], line["key"]) == (f"{TOPIC}-{ELSEWHERE}@7", "shoe-1")
    assert line["belongs_to_partition"] == HOME
    assert "partitioner=murmur2_random" in line["way_on"]


def test_every_misplaced_delete_is_said() -> None:
    placement = Placement(NUM_PARTITIONS, Count())
    passed = [(record(ELSEWHERE, offset=offset), delete("shoe-1")) for offset in (7, 8)]
    assert warnings_of(placement, *passed) == [
        f"misplaced record: {TOPIC}-{ELSEWHERE}@7",
        f"misplaced delete or patch has no effect: {TOPIC}-{ELSEWHERE}@7",
        f"misplaced delete or patch has no effect: {TOPIC}-{ELSEWHERE}@8",
    ]


def test_a_record_without_a_key_belongs_nowhere_and_is_not_counted() -> None:
    count = Count()
    for key in (None, b""):
        Placement(NUM_PARTITIONS, count).observe(record(ELSEWHERE, key=key))
    assert count.value == 0


def test_a_topic_with_one_partition_has_no_misplaced_record() -> None:
    count = Count()
    Placement(1, count).observe(record(0))
    assert count.value == 0


def test_a_misplaced_record_is_set_aside_where_that_is_wanted() -> None:
    placement = Placement(NUM_PARTITIONS, Count(), sets_aside=True)
    placement.check(record(HOME), upload("shoe-1"))
    with pytest.raises(BadEvent, match=f"belongs to partition {HOME} of {TOPIC}"):
        placement.check(record(ELSEWHERE), upload("shoe-1"))


@pytest.fixture
def partitioned(tmp_path: Path) -> World:
    return World(tmp_path / "index", num_partitions=NUM_PARTITIONS)


def test_a_consumer_counts_misplaced_records_whatever_they_hold(partitioned: World) -> None:
    partitioned.publish(upload("shoe-1"), HOME)
    partitioned.publish(delete("shoe-1"), ELSEWHERE)
    partitioned.append(KEY, None, ELSEWHERE)
    next_offset = partitioned.append(KEY, b"garbage", ELSEWHERE)
    with partitioned.running():
        partitioned.wait_committed(1, HOME)
        partitioned.wait_committed(next_offset, ELSEWHERE)
    value = partitioned.metrics.registry.get_sample_value("cliptide_consumer_misplaced_records_total")
    assert value == 3
    assert partitioned.reasons() == ["undecodable"]


def test_a_consumer_sets_misplaced_records_aside_when_told_so(partitioned: World) -> None:
    partitioned.set_options(preparation=PreparationOptions(sets_misplaced_aside=True))
    partitioned.publish(upload("shoe-1"), HOME)
    next_offset = partitioned.append(KEY, encode_event(delete("shoe-1")).value, ELSEWHERE)
    with partitioned.running():
        partitioned.wait_committed(1, HOME)
        partitioned.wait_committed(next_offset, ELSEWHERE)
    assert partitioned.reasons() == ["misplaced_key"]
    assert partitioned.searcher().find("shoe-1") is not None
