"""The values that come out of an event log and go into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]


def next_offset_after(offset: int) -> int:
    return offset + 1  # no other code adds one to an offset


@dataclass(frozen=True, slots=True)
class Record:
    """One undecoded record.

    `timestamp_ms` is Kafka's record timestamp, in milliseconds since 1970 (UTC). `assignment_epoch`
    grows with every assignment of the source. A reader must drop a record whose epoch is older than
    that of the partition's present assignment.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp_ms: int
    assignment_epoch: int

    @property
    def next_offset(self) -> int:
        return next_offset_after(self.offset)

    @property
    def size_bytes(self) -> int:
        headers = sum(len(name) + len(value or b"") for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers


@dataclass(frozen=True, slots=True)
class EndOfPartition:
    """The reader has read everything below `next_offset`, transaction markers and compacted gaps included."""

    partition: int
    next_offset: int
    assignment_epoch: int


@dataclass(frozen=True, slots=True)
class LogRange:
    """The offsets that a partition holds at this moment: `[first_offset, next_offset)`.

    A producer's open transaction holds back everything from `held_back_from` on: these records are in
    the log but cannot be read before the transaction ends. None while no transaction is open.
    """

    first_offset: int
    next_offset: int
    held_back_from: int | None = None

    @property
    def num_held_back(self) -> int:
        return 0 if self.held_back_from is None else self.next_offset - self.held_back_from


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic as the broker describes it. `topic_id` is None if the broker has no topic ids."""

    name: str
    topic_id: str | None
    num_partitions: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """Where a published record lies in the log, as the broker acknowledged it."""

    topic: str
    partition: int
    offset: int
    next_offset: int
