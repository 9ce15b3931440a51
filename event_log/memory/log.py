"""An event log in memory: topics, partitions with gaps, and faults on demand."""

from __future__ import annotations

import threading
import time
import uuid
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Literal, TypeAlias

from event_log.errors import EventLogError, RecordTooLarge, TopicMissing
from event_log.memory.group import Group
from event_log.records import (
    Delivery,
    Headers,
    LogRange,
    Record,
    TopicDescription,
    next_offset_after,
)

Operation: TypeAlias = Literal["poll", "commit", "committed", "log_range", "describe_topic", "publish"]

_NO_EPOCH = 0


@dataclass(slots=True)
class MemoryPartition:
    """Records in offset order. An offset without a record was a transaction marker or was compacted away."""

    first_offset: int = 0
    next_offset: int = 0
    records: list[Record] = field(default_factory=list)
    held_back_from: int | None = None

    @property
    def readable_offset(self) -> int:
        """Where reading ends: at the end of the log, or at the first record of an open transaction."""
        return self.next_offset if self.held_back_from is None else self.held_back_from

    def records_from(self, next_offset: int, max_records: int) -> list[Record]:
        start = bisect_left(self.records, next_offset, key=attrgetter("offset"))
        end = bisect_left(self.records, self.readable_offset, key=attrgetter("offset"))
        return self.records[start : min(start + max_records, end)]


@dataclass(slots=True)
class _Topic:
    topic_id: str
    partitions: list[MemoryPartition]


class MemoryLog:
    """Topics and groups that any number of `MemoryRecordSource` and `MemoryPublisher` share. Thread-safe.

    Tests can also do what happens to a real log in the course of time: `append_marker`, `hold_back` and
    `let_go` (transactions),
    `truncate` (retention), `remove` (compaction), `delete_topic` and then `create_topic` (another topic
    id), and `fail_next` (faults).
    """

    def __init__(
        self, *, max_record_bytes: int = 11 * 1024 * 1024, clock: Callable[[], float] = time.time
    ) -> None:
        self.changed = threading.Condition(threading.RLock())
        self._max_record_bytes = max_record_bytes
        self._clock = clock
        self._topics: dict[str, _Topic] = {}
        self._groups: dict[str, Group] = {}
        self._faults: dict[Operation, deque[EventLogError]] = {}

    def create_topic(self, topic: str, num_partitions: int = 1) -> TopicDescription:
        """Create the topic, unless it exists."""
        with self._changing():
            partitions = [MemoryPartition() for _ in range(num_partitions)]
            self._topics.setdefault(topic, _Topic(uuid.uuid4().hex, partitions))
            return self.describe_topic(topic)

    def delete_topic(self, topic: str) -> None:
        """Delete the topic and its records. The groups keep their offsets, as in Kafka for a while."""
        with self._changing():
            self._topic(topic)
            del self._topics[topic]

    def describe_topic(self, topic: str) -> TopicDescription:
        """Describe the topic, or raise `TopicMissing`."""
        with self.changed:
            found = self._topic(topic)
            return TopicDescription(topic, found.topic_id, len(found.partitions))

    def append(
        self,
        topic: str,
        partition: int,
        *,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Headers = (),
    ) -> Delivery:
        """Append one record; raises `TopicMissing` and `RecordTooLarge`."""
        with self._changing():
            log = self.partition(topic, partition)
            timestamp_ms = int(self._clock() * 1000)
            record = Record(topic, partition, log.next_offset, key, value, headers, timestamp_ms, _NO_EPOCH)
            if record.size_bytes > self._max_record_bytes:
                raise RecordTooLarge(
                    f"{record.size_bytes} bytes, at most {self._max_record_bytes} are allowed"
                )
            log.records.append(record)
            log.next_offset = record.next_offset
            return Delivery(topic, partition, record.offset, record.next_offset)

    def append_marker(self, topic: str, partition: int) -> None:
        """Use one offset without a record, as the end of a transaction does."""
        with self._changing():
            log = self.partition(topic, partition)
            log.next_offset = next_offset_after(log.next_offset)

    def hold_back(self, topic: str, partition: int) -> None:
        """Hold back whatever is appended from now on, as an open transaction does."""
        with self._changing():
            log = self.partition(topic, partition)
            log.held_back_from = log.next_offset

    def let_go(self, topic: str, partition: int) -> None:
        """End the open transaction, with a marker."""
        with self._changing():
            self.partition(topic, partition).held_back_from = None
            self.append_marker(topic, partition)

    def truncate(self, topic: str, partition: int, first_offset: int) -> None:
        """Drop everything below `first_offset`, as retention does."""
        with self._changing():
            log = self.partition(topic, partition)
            log.records = [record for record in log.records if record.offset >= first_offset]
            log.first_offset = first_offset

    def remove(self, topic: str, partition: int, offset: int) -> None:
        """Drop one record and leave a gap, as compaction does."""
        with self._changing():
            log = self.partition(topic, partition)
            log.records = [record for record in log.records if record.offset != offset]

    def log_range(self, topic: str, partition: int) -> LogRange:
        with self.changed:
            log = self.partition(topic, partition)
            held_back_from = log.held_back_from if log.readable_offset < log.next_offset else None
            return LogRange(log.first_offset, log.next_offset, held_back_from)

    def fail_next(self, operation: Operation, error: EventLogError, times: int = 1) -> None:
        """Make the next calls of an operation raise `error`, whoever makes them."""
        with self._changing():
            self._faults.setdefault(operation, deque()).extend([error] * times)

    def raise_fault(self, operation: Operation) -> None:
        with self.changed:
            faults = self._faults.get(operation)
            if faults:
                raise faults.popleft()

    def partition(self, topic: str, partition: int) -> MemoryPartition:
        """Return the live partition; hold `changed` while using it."""
        return self._topic(topic).partitions[partition]

    def group(self, group_id: str) -> Group:
        """Return the live group; hold `changed` while using it."""
        return self._groups.setdefault(group_id, Group())

    def _topic(self, topic: str) -> _Topic:
        found = self._topics.get(topic)
        if found is None:
            raise TopicMissing(topic)
        return found

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with self.changed:
            yield
            self.changed.notify_all()
