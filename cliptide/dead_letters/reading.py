"""Reading dead letters: the records that were set aside, each with its position, reason and error."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cliptide.terminal.waiting import tell
from event_log.errors import TransientLogError
from event_log.records import EndOfPartition, LogRange, Record
from event_log.source import RecordSource
from schemas.dead_letters import RecordPosition, read_explanation

POLL_SECONDS = 0.2
MAX_RECORDS = 500
SAY_EVERY_SECONDS = 5.0  # a long topic takes minutes
PATIENCE_SECONDS = 60.0  # electing a partition's leader takes far less


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One record set aside. `origin` is None where the headers do not name it."""

    position: RecordPosition
    origin: RecordPosition | None
    reason: str
    error: str
    content_id: str | None  # the record's key; bytes that are not UTF-8 are replaced
    size_bytes: int  # of the record's key and value, without the headers that explain it
    timestamp_ms: int


def dead_letter_from_record(record: Record) -> DeadLetter:
    """Read a record of the dead-letter topic, whatever its bytes are."""
    said = read_explanation(record.headers)
    return DeadLetter(
        position=position_of(record),
        origin=said.origin,
        reason=said.reason,
        error=said.error,
        content_id=record.key.decode(errors="replace") if record.key is not None else None,
        size_bytes=len(record.key or b"") + len(record.value or b""),
        timestamp_ms=record.timestamp_ms,
    )


def position_of(record: Record) -> RecordPosition:
    return RecordPosition(record.topic, record.partition, record.offset)


def tally(
    letters: Iterable[DeadLetter], reason: str | None, last: int
) -> tuple[Counter[str], Sequence[DeadLetter]]:
    """Count the letters of the wanted reason (None: all) by reason, and keep the latest ones.

    The latest are chosen by their times, because partitions are read in any order.
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
    """Order by time, and within one millisecond by the offset that the record had."""
    return letter.timestamp_ms, (letter.origin or letter.position).offset


class _ScanVoice:
    """Says how far a scan is, or that nothing comes, and gives up after `patience_seconds`."""

    def __init__(
        self, topic: str, patience_seconds: float, clock: Callable[[], float], say: Callable[[str], None]
    ) -> None:
        self._topic = topic
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._say = say
        self._num_read = 0
        self._heard_at = self._said_at = clock()

    def hear(self, events: Sequence[Record | EndOfPartition]) -> None:
        """Take note of one poll. Raises `TransientLogError` when nothing has come for too long."""
        now = self._clock()
        if events:
            self._num_read += sum(isinstance(event, Record) for event in events)
            self._heard_at = now
        silent_seconds = now - self._heard_at
        if silent_seconds >= self._patience_seconds:
            seconds = f"{self._patience_seconds:g} seconds"
            raise TransientLogError(f"no record of {self._topic} came for {seconds}")
        if now - self._said_at >= SAY_EVERY_SECONDS and (events or silent_seconds >= SAY_EVERY_SECONDS):
            self._said_at = now
            self._say(self._in_words(silent_seconds))

    def _in_words(self, silent_seconds: float) -> str:
        if silent_seconds:
            return f"waiting for records of {self._topic}, for {silent_seconds:.0f} s …"
        return f"read {self._num_read:,} records of {self._topic} …"


class TopicScan:
    """Reads a topic once from its start to its present end, or its `last_records` of each partition.

    It commits nothing and joins no group, so it sees every partition, disturbs no consumer, waits for no
    rebalance and needs no right to a group.
    Every few seconds it says how far it is. It gives up when nothing has come for `patience_seconds`,
    because a source whose broker is away returns nothing and raises nothing.
    """

    def __init__(
        self,
        source: RecordSource,
        topic: str,
        *,
        last_records: int | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        say: Callable[[str], None] = tell,
    ) -> None:
        self._source = source
        self._topic = topic
        self._last_records = last_records
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._say = say
        self._unfinished: set[int] = set()
        self.first_offsets: dict[int, int] = {}

    def records(self) -> Iterator[Record]:
        """Yield every record.

        Raises `TopicMissing`, the source's other errors, and `TransientLogError` when nothing more
        comes although the end is not reached.
        """
        num_partitions = self._source.describe_topic(self._topic).num_partitions
        self._unfinished = set(range(num_partitions))
        self._source.assign(self._topic, range(num_partitions), self)
        voice = _ScanVoice(self._topic, self._patience_seconds, self._clock, self._say)
        while self._unfinished:
            events = self._source.poll(MAX_RECORDS, POLL_SECONDS)
            for event in events:
                if isinstance(event, EndOfPartition):
                    self._unfinished.discard(event.partition)
                else:
                    yield event
            voice.hear(events)

    def partitions_assigned(self, partitions: Collection[int], assignment_epoch: int) -> Mapping[int, int]:
        first_offsets = {p: self._first_offset(self._source.log_range(p)) for p in partitions}
        self.first_offsets.update(first_offsets)
        return first_offsets

    def _first_offset(self, log: LogRange) -> int:
        if self._last_records is None:
            return log.first_offset
        return max(log.first_offset, log.next_offset - self._last_records)

    def partitions_revoked(self, partitions: Collection[int]) -> None:
        """Nothing is kept for a partition."""

    def partitions_lost(self, partitions: Collection[int]) -> None:
        """Nothing is kept for a partition."""
