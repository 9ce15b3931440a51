"""The in-memory source and publisher. They pass the same tests as those over Kafka."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace

from event_log.errors import EventLogError, FatalLogError, OffsetOutOfRange
from event_log.memory.group import Group
from event_log.memory.log import MemoryLog
from event_log.partitioning import partition_from_key
from event_log.records import Delivery, EndOfPartition, Headers, LogRange, Record, TopicDescription
from event_log.source import AssignmentListener

__all__ = ["MemoryLog", "MemoryPublisher", "MemoryRecordSource"]


class MemoryRecordSource:
    """Implements `event_log.source.RecordSource` over a `MemoryLog`.

    Rebalances are cooperative and happen inside `poll`. So a member that does not poll keeps its
    partitions until a test calls `expel`.
    """

    def __init__(self, log: MemoryLog, group_id: str) -> None:
        self._log = log
        self._group_id = group_id
        self._topic = ""
        self._listener: AssignmentListener | None = None
        self._epoch = 0
        self._epochs: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._reported_ends: dict[int, int] = {}
        self._paused: set[int] = set()
        self._joins_group = True

    def subscribe(self, topic: str, listener: AssignmentListener) -> None:
        self._topic = topic
        self._listener = listener

    def assign(self, topic: str, partitions: Collection[int], listener: AssignmentListener) -> None:
        self._topic = topic
        self._listener = listener
        self._joins_group = False
        self._assign(list(partitions))

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record | EndOfPartition]:
        """Take part in a rebalance, then return the records that are there; none after the timeout."""
        deadline = time.monotonic() + timeout_seconds
        self._log.raise_fault("poll")
        while True:
            self._rebalance()
            with self._log.changed:
                events = self._take(max_records)
                remaining = deadline - time.monotonic()
                if events or remaining <= 0:
                    return events
                self._log.changed.wait(remaining)

    def pause(self, partitions: Collection[int]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Collection[int]) -> None:
        self._paused.difference_update(partitions)

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Offset commit. That of an expelled member has no effect."""
        self._log.raise_fault("commit")
        with self._log.changed:
            group = self._group()
            if id(self) in group.members:
                group.committed |= {(self._topic, p): offset for p, offset in next_offsets.items()}

    def committed(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        self._log.raise_fault("committed")
        with self._log.changed:
            committed = self._group().committed
            return {partition: committed.get((self._topic, partition)) for partition in partitions}

    def log_range(self, partition: int) -> LogRange:
        self._log.raise_fault("log_range")
        return self._log.log_range(self._topic, partition)

    def describe_topic(self, topic: str) -> TopicDescription:
        self._log.raise_fault("describe_topic")
        return self._log.describe_topic(topic)

    def close(self) -> None:
        """Call `partitions_revoked` for what is still assigned, then leave the group."""
        if not self._joins_group:
            return
        try:
            if self._was_expelled():
                self._lose()
            else:
                self._revoke(sorted(self._positions))
        finally:
            self.expel()

    def expel(self) -> None:
        """Remove the member from its group, as a broker removes one that stopped answering.

        Any thread may call this. The other members get the partitions at once. The member itself learns
        of it in its next `poll`, which calls `partitions_lost`, and joins again.
        """
        with self._log.changed:
            group = self._group()
            if id(self) in group.members:
                group.leave(id(self), self._num_partitions())
            self._log.changed.notify_all()

    def _rebalance(self) -> None:
        if not self._joins_group:
            return
        if self._was_expelled():
            self._lose()
        with self._log.changed:
            self._join()
            to_revoke = self._group().to_revoke(id(self))
        self._revoke(to_revoke)
        with self._log.changed:
            to_assign = self._group().to_assign(id(self))
            self._group().assign(id(self), to_assign)
        if to_assign:
            self._assign(to_assign)

    def _join(self) -> None:
        num_partitions = self._log.describe_topic(self._topic).num_partitions
        if id(self) not in self._group().members:
            self._group().join(id(self), num_partitions)
            self._log.changed.notify_all()

    def _assign(self, partitions: list[int]) -> None:
        self._epoch += 1
        starts = self._subscribed_listener().partitions_assigned(partitions, self._epoch)
        for partition in partitions:
            self._positions[partition] = starts[partition]
            self._epochs[partition] = self._epoch

    def _revoke(self, partitions: list[int]) -> None:
        read = [partition for partition in partitions if partition in self._positions]
        try:
            if read:
                self._subscribed_listener().partitions_revoked(read)
        finally:
            self._forget(partitions)
            with self._log.changed:
                self._group().revoke(partitions)
                self._log.changed.notify_all()

    def _lose(self) -> None:
        lost = sorted(self._positions)
        self._forget(lost)
        self._subscribed_listener().partitions_lost(lost)

    def _forget(self, partitions: Collection[int]) -> None:
        self._paused.difference_update(partitions)
        for partition in partitions:
            for state in (self._positions, self._epochs, self._reported_ends):
                state.pop(partition, None)

    def _take(self, max_records: int) -> list[Record | EndOfPartition]:
        events: list[Record | EndOfPartition] = []
        readable = [p for p in sorted(self._positions) if p not in self._paused]
        for partition in readable:
            self._check_range(partition)
        for partition in readable:
            if len(events) < max_records:
                events += self._take_from(partition, max_records - len(events))
        return events

    def _take_from(self, partition: int, max_records: int) -> list[Record | EndOfPartition]:
        log = self._log.partition(self._topic, partition)
        epoch = self._epochs[partition]
        events: list[Record | EndOfPartition] = []
        for record in log.records_from(self._positions[partition], max_records):
            events.append(replace(record, assignment_epoch=epoch))
            self._positions[partition] = record.next_offset
        if len(events) < max_records and self._reported_ends.get(partition) != log.readable_offset:
            end = log.readable_offset
            events.append(EndOfPartition(partition, end, epoch))
            self._positions[partition] = self._reported_ends[partition] = end
        return events

    def _check_range(self, partition: int) -> None:
        log = self._log.partition(self._topic, partition)
        position = self._positions[partition]
        if not log.first_offset <= position <= log.next_offset:
            detail = f"{position} is not in [{log.first_offset}, {log.next_offset}]"
            raise OffsetOutOfRange(self._topic, partition, detail)

    def _was_expelled(self) -> bool:
        with self._log.changed:
            return bool(self._positions) and id(self) not in self._group().members

    def _group(self) -> Group:
        return self._log.group(self._group_id)

    def _num_partitions(self) -> int:
        return len(self._group().target)

    def _subscribed_listener(self) -> AssignmentListener:
        if self._listener is None:
            raise FatalLogError("poll before subscribe")
        return self._listener


class MemoryPublisher:
    """Implements `NonBlockingPublisher` over a `MemoryLog`. Delivers at once.

    The key chooses the partition as in Kafka's clients; records without a key go round robin.
    """

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self._keyless = itertools.count()
        self._is_closed = False

    def publish(
        self, topic: str, *, key: bytes | None, value: bytes | None, headers: Headers = ()
    ) -> Future[Delivery]:
        future: Future[Delivery] = Future()
        try:
            self._log.raise_fault("publish")
            if self._is_closed:
                raise FatalLogError("the publisher is closed")
            partition = self._partition(topic, key)
            future.set_result(self._log.append(topic, partition, key=key, value=value, headers=headers))
        except EventLogError as error:
            future.set_exception(error)
        return future

    offer = publish  # there is no queue, so `publish` never waits

    def flush(self, timeout_seconds: float) -> int:
        return 0

    def close(self) -> None:
        self._is_closed = True

    def _partition(self, topic: str, key: bytes | None) -> int:
        num_partitions = self._log.describe_topic(topic).num_partitions
        if key is None:
            return next(self._keyless) % num_partitions
        return partition_from_key(key, num_partitions)
