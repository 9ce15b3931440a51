"""What the writer thread tells the intake thread."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Committed:
    """A shard has committed up to `next_offset`.

    `newest_timestamp_ms` is the timestamp of the newest committed record. Before this process has
    committed a record, it is the shard's watermark; without a watermark it is the time of the takeover.
    """

    partition: int
    next_offset: int
    newest_timestamp_ms: int


@dataclass(frozen=True, slots=True)
class ShardFenced:
    """Another writer owns the shard now, and this process has dropped it."""

    partition: int
    assignment_epoch: int


Notice: TypeAlias = Committed | ShardFenced


class Notices:
    """A mailbox: the writer thread puts notices in and never waits, the intake thread takes them out.

    The mailbox is built first, so that neither of the two threads needs the other one to exist.
    A deque is enough because its `append` and `popleft` are atomic.
    """

    def __init__(self) -> None:
        self._waiting: deque[Notice] = deque()

    def put(self, notice: Notice) -> None:
        self._waiting.append(notice)

    def take_all(self) -> list[Notice]:
        """Take out what is there, in the order in which it was put in."""
        return [self._waiting.popleft() for _ in range(len(self._waiting))]
