"""Reading dead letters: records set aside, with place, reason and error."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from event_log.errors import TransientLogError
from event_log.records import EndOfPartition, Record
from event_log.source import RecordSource

CONNECT_PREFIX = "__connect.errors."
REASON_HEADER = "cliptide.reason"
POLL_SECONDS = 0.2
MAX_RECORDS = 500
PATIENCE_SECONDS = 60.0  # joining the group, a new leader for a partition: all far below


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies, or lay, in a log."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record set aside. `origin` is None where the headers do not say it."""

    place: Place
    origin: Place | None
    reason: str
    error: str
    content_id: str | None  # the record's key, as far as it is text
    size_bytes: int
    timestamp_ms: int


def dead_letter_from_record(record: Record) -> DeadLetter:
    """Read Kafka Connect's error headers and the reason code; the last header of a name counts."""
    headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
    return DeadLetter(
        place=Place(record.topic, record.partition, record.offset),
        origin=_origin(headers),
        reason=headers.get(REASON_HEADER, "unknown"),
        error=headers.get(CONNECT_PREFIX + "exception.message", ""),
        content_id=record.key.decode(errors="replace") if record.key is not None else None,
        size_bytes=len(record.key or b"") + len(record.value or b""),  # without what we say about it
        timestamp_ms=record.timestamp_ms,
    )


def _origin(headers: Mapping[str, str]) -> Place | None:
    try:
        return Place(
            headers[CONNECT_PREFIX + "topic"],
            int(headers[CONNECT_PREFIX + "partition"]),
            int(headers[CONNECT_PREFIX + "offset"]),
        )
    except (KeyError, ValueError):
        return None


def tally(
    letters: Iterable[DeadLetter], reason: str | None, last: int
) -> tuple[Counter[str], Sequence[DeadLetter]]:
    """Count by reason, and keep the latest of the wanted reason.

    Partitions are read in any order, so it is their times that count, and not what is read last.
    """
    counts: Counter[str] = Counter()
    latest: list[tuple[tuple[int, int], int, DeadLetter]] = []
    for number, letter in enumerate(letters):
        if reason in (None, letter.reason):
            counts[letter.reason] += 1
            heapq.heappush(latest, (_age(letter), number, letter))
            if len(latest) > last:
                heapq.heappop(latest)
    return counts, [letter for _, _, letter in sorted(latest)]


def _age(letter: DeadLetter) -> tuple[int, int]:
    """Ascends with time; within a millisecond, with the place that the record had."""
    return letter.timestamp_ms, (letter.origin or letter.place).offset


class TopicScan:
    """Reads a topic once from its start to its present end, committing nothing.

    It joins a group of its own, so it sees every partition and disturbs no consumer. While a
    broker is away its source only returns nothing: so a scan to which nothing comes gives up.
    """

    def __init__(
        self,
        source: RecordSource,
        topic: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._topic = topic
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._unfinished: set[int] = set()
        self.first_offsets: dict[int, int] = {}

    def records(self) -> Iterator[Record]:
        """Yield every record; raises `TopicMissing` and the source's other errors.

        `TransientLogError` when nothing more comes and the end is not reached.
        """
        num_partitions = self._source.describe_topic(self._topic).num_partitions
        self._unfinished = set(range(num_partitions))
        self._source.subscribe(self._topic, self)
        came_at = self._clock()
        while self._unfinished:
            events = self._source.poll(MAX_RECORDS, POLL_SECONDS)
            for event in events:
                if isinstance(event, EndOfPartition):
                    self._unfinished.discard(event.partition)
                else:
                    yield event
            if events:
                came_at = self._clock()
            elif self._clock() - came_at >= self._patience_seconds:
                seconds = f"{self._patience_seconds:g} seconds"
                raise TransientLogError(f"nothing of {self._topic} came for {seconds}")

    def partitions_assigned(self, partitions: Collection[int], assignment_epoch: int) -> Mapping[int, int]:
        first_offsets = {p: self._source.log_range(p).first_offset for p in partitions}
        self.first_offsets.update(first_offsets)
        return first_offsets

    def partitions_revoked(self, partitions: Collection[int]) -> None:
        """Nothing is kept for a partition."""

    def partitions_lost(self, partitions: Collection[int]) -> None:
        """Nothing is kept for a partition."""
