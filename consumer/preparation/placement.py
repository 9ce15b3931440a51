"""Notices records that another partitioner has put into the wrong partition.

A shard knows only its own partition. So a delete or a newer event that lies in another partition than
its content changes nothing there, although the broker has acknowledged it.
"""

from __future__ import annotations

import threading
from typing import Protocol

import structlog

from event_log.partitioning import partition_from_key
from event_log.records import Record
from schemas.errors import BadEvent
from schemas.events import Event, UploadEvent

_LONGEST_SHOWN_KEY = 100
_REMEDY = (
    "its producer places keys with another partitioner: set partitioner=murmur2_random in librdkafka's "
    "clients, or murmur2 in others (Java's default), and publish its deletes and updates again"
)


class MisplacedCounter(Protocol):
    """Is told of each misplaced record."""

    def inc(self) -> None: ...


class Placement:
    """Compares the partition of each record with the one that its key belongs to. Thread-safe.

    Every misplaced record is counted. The first one is logged, and so is every misplaced delete or patch,
    because its content stays searchable as it was.
    """

    def __init__(self, num_partitions: int, counter: MisplacedCounter, *, sets_aside: bool = False) -> None:
        self._num_partitions = num_partitions
        self._counter = counter
        self._sets_aside = sets_aside
        self._log = structlog.get_logger(__name__)
        self._lock = threading.Lock()
        self._has_spoken = False

    def observe(self, record: Record) -> None:
        """Count the record if it is misplaced, whatever it holds; log the first one."""
        home = self._other_home(record)
        if home is None:
            return
        self._counter.inc()
        with self._lock:
            is_first, self._has_spoken = not self._has_spoken, True
        if is_first:
            self._log.warning("misplaced record", **_described(record, home), way_on=_REMEDY)

    def check(self, record: Record, event: Event) -> None:
        """Log a misplaced delete or patch. Raises `BadEvent` if misplaced records are to be set aside."""
        home = self._other_home(record)
        if home is None:
            return
        if self._sets_aside:
            where = f"its key belongs to partition {home} of {record.topic}"
            raise BadEvent("misplaced_key", f"{where}: {_REMEDY}")
        if not isinstance(event, UploadEvent):
            self._log.warning(
                "misplaced delete or patch has no effect", **_described(record, home), way_on=_REMEDY
            )

    def _other_home(self, record: Record) -> int | None:
        """The partition that the record's key belongs to, if it is another one."""
        if not record.key or self._num_partitions == 1:
            return None
        home = partition_from_key(record.key, self._num_partitions)
        return None if home == record.partition else home


def _described(record: Record, home: int) -> dict[str, object]:
    key = (record.key or b"")[:_LONGEST_SHOWN_KEY].decode(errors="replace")
    return {
        "record": f"{record.topic}-{record.partition}@{record.offset}",
        "key": key,
        "belongs_to_partition": home,
    }
