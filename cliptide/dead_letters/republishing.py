"""Dead letters back to their topic, once what made them bad has been put right.

A record that is published again gets a new offset, so an event without a version would
win over everything that came in between. Therefore a letter goes back only while its
record is still the newest one of its key. That makes a second run harmless, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cliptide.dead_letters.reading import DeadLetter, dead_letter_from_record, position_of
from cliptide.publishing.publish import PlacedEvent
from event_log.records import Record
from schemas.codec import EncodedEvent
from schemas.dead_letters import RecordPosition, headers_of_record, is_value_omitted

SUPERSEDED, DUPLICATE = "superseded", "duplicate"
HARMLESS = frozenset({SUPERSEDED, DUPLICATE})
"""Refusals after which nothing is left to do."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is remembered of a letter between the scans; its bytes are read again."""

    position: RecordPosition
    origin: RecordPosition
    timestamp_ms: int

    def is_older_than(self, partition: int, offset: int, timestamp_ms: int) -> bool:
        """Offsets tell within a partition; between two, the time of setting aside must do."""
        if partition == self.origin.partition:
            return offset > self.origin.offset
        return timestamp_ms > self.timestamp_ms


@dataclass(slots=True)
class Republishing:
    """Three scans: `offer` the letters, `compare` with the topic, then take the `events` of the letters.

    `refused` counts by why. A letter whose value was omitted, being too large with its
    headers, is never published: as a null value it would delete the content.
    """

    topic: str
    reason: str | None = None
    refused: Counter[str] = field(default_factory=Counter)
    _by_key: dict[bytes, Candidate] = field(default_factory=dict)

    def offer(self, letters: Iterable[Record]) -> None:
        """Choose among the letters of the wanted reason the newest of each key."""
        for record in letters:
            letter = dead_letter_from_record(record)
            if self.reason not in (None, letter.reason):
                continue
            refusal = _refusal(record, letter, self.topic)
            if refusal is not None:
                self.refused[refusal] += 1
            elif letter.origin is not None and record.key is not None:
                self._choose(record.key, Candidate(letter.position, letter.origin, letter.timestamp_ms))

    def compare(self, records: Iterable[Record]) -> None:
        """Drop every letter whose key has a later record in the topic."""
        for record in records:
            chosen = self._by_key.get(record.key or b"")
            if chosen and chosen.is_older_than(record.partition, record.offset, record.timestamp_ms):
                del self._by_key[record.key or b""]
                self.refused[SUPERSEDED] += 1

    def events(self, letters: Iterable[Record]) -> Iterator[PlacedEvent]:
        """Yield the chosen letters as their records were: key, value and headers."""
        positions = {candidate.position for candidate in self._by_key.values()}
        for record in letters:
            position = position_of(record)
            if position in positions and record.key is not None and record.value is not None:
                content_id = record.key.decode(errors="replace")
                encoded = EncodedEvent(record.key, record.value, headers_of_record(record.headers))
                yield PlacedEvent(str(position), content_id, encoded)

    def _choose(self, key: bytes, candidate: Candidate) -> None:
        known = self._by_key.get(key)
        if known is None:
            self._by_key[key] = candidate
        elif known.origin == candidate.origin:
            self.refused[DUPLICATE] += 1
        else:
            origin = candidate.origin
            if known.is_older_than(origin.partition, origin.offset, candidate.timestamp_ms):
                self._by_key[key] = candidate
            self.refused[SUPERSEDED] += 1


def _refusal(record: Record, letter: DeadLetter, topic: str) -> str | None:
    """Why this letter can never go back, whatever the topic holds."""
    if letter.origin is None:
        return "without_origin"
    if letter.origin.topic != topic:
        return "of_another_topic"
    if is_value_omitted(record.headers):
        return "value_omitted"
    if record.value is None:
        return "without_value"
    return "without_key" if record.key is None else None
