"""The reading side of an event log."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from event_log.records import EndOfPartition, LogRange, Record, TopicDescription


class AssignmentListener(Protocol):
    """What a reader does when it gets or loses partitions. `RecordSource.poll` calls it."""

    def partitions_assigned(self, partitions: Collection[int], assignment_epoch: int) -> Mapping[int, int]:
        """Take the partitions over, and return where to start reading: partition → next offset."""

    def partitions_revoked(self, partitions: Collection[int]) -> None:
        """Finish the work on the partitions. When this returns, another member may get them."""

    def partitions_lost(self, partitions: Collection[int]) -> None:
        """Drop the partitions without a commit, because another member may own them already."""


class RecordSource(Protocol):
    """Reads one topic as a member of a consumer group. One thread owns it.

    Call every method from the thread that polled first. The methods raise errors of
    `event_log.errors`: after a transient error the caller may try again, any other ends the reader.
    `RecordUnreadable` holds one partition; `poll` goes on with the others.
    """

    def subscribe(self, topic: str, listener: AssignmentListener) -> None: ...

    def assign(self, topic: str, partitions: Collection[int], listener: AssignmentListener) -> None:
        """Read these partitions, instead of `subscribe`: no group is joined, and nothing is rebalanced.

        The listener's `partitions_assigned` is called at once, and its other methods never.
        """

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record | EndOfPartition]:
        """Return the records that are there, in offset order within a partition; none after the timeout."""

    def pause(self, partitions: Collection[int]) -> None: ...

    def resume(self, partitions: Collection[int]) -> None: ...

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Offset commit: store the group's position for lag tools, asynchronously. No failure is raised."""

    def committed(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        """Return the next offsets that the group has committed; None for a partition without one."""

    def log_range(self, partition: int) -> LogRange:
        """Return what the partition holds, records that an open transaction holds back included."""

    def describe_topic(self, topic: str) -> TopicDescription:
        """Describe the topic, or raise `TopicMissing`."""

    def close(self) -> None:
        """Call `partitions_revoked` for what is still assigned, then leave the group."""
