"""The reading side of an event log."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from event_log.records import EndOfPartition, LogRange, Record, TopicDescription


class AssignmentListener(Protocol):
    """What a reader does when partitions come and go; called inside `RecordSource.poll`."""

    def partitions_assigned(self, partitions: Collection[int], assignment_epoch: int) -> Mapping[int, int]:
        """Take the partitions over and return where to start: partition → next offset."""

    def partitions_revoked(self, partitions: Collection[int]) -> None:
        """Finish with the partitions; they are given away when this returns."""

    def partitions_lost(self, partitions: Collection[int]) -> None:
        """The partitions already belong to someone else: drop them without committing."""


class RecordSource(Protocol):
    """One topic read as a member of a consumer group, owned by one thread.

    Every method is called from the thread that first polled. Errors are of
    `event_log.errors`: transient ones may be retried, the others end the reader.
    """

    def subscribe(self, topic: str, listener: AssignmentListener) -> None: ...

    def poll(self, max_records: int, timeout_seconds: float) -> Sequence[Record | EndOfPartition]:
        """Return what is there, in offset order within a partition; empty after the timeout."""

    def pause(self, partitions: Collection[int]) -> None: ...

    def resume(self, partitions: Collection[int]) -> None: ...

    def commit(self, next_offsets: Mapping[int, int]) -> None:
        """Offset commit: publish the group's position for lag tools (best effort, asynchronous)."""

    def committed(self, partitions: Collection[int]) -> Mapping[int, int | None]:
        """Return the group's committed next offsets; None where it has none."""

    def log_range(self, partition: int) -> LogRange: ...

    def describe_topic(self, topic: str) -> TopicDescription:
        """Describe the topic, or raise `TopicMissing`."""

    def close(self) -> None:
        """Leave the group; `partitions_revoked` is called for what is still assigned."""
