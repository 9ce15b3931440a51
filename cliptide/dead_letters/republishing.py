"""Publishes dead letters to their topic again, after their cause was fixed.

A record that is published again gets a new offset. So an event without a version would replace
whatever came in between. Therefore a letter is published only while its record is still the newest
of its content, which is its key; a mapping may say otherwise. For the same reason a second run is harmless.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from cliptide.dead_letters.reading import DeadLetter, dead_letter_from_record, position_of
from cliptide.publishing.publish import LabelledEvent
from event_log.records import Record
from schemas.codec import EncodedEvent, EventDecoder
from schemas.dead_letters import RecordPosition, headers_of_record, is_value_omitted
from schemas.errors import BadEvent, UnknownSchema
from schemas.mapping.rules import EventMapping

ContentOf: TypeAlias = Callable[[Record], bytes]
"""Says of which content a record is, if only to compare it with another record."""

SUPERSEDED, DUPLICATE = "superseded", "duplicate"
HARMLESS = frozenset({SUPERSEDED, DUPLICATE})
"""Reasons for which a letter stays and nobody needs to act."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is kept of a letter between the scans. Its bytes are read again."""

    position: RecordPosition
    origin: RecordPosition
    timestamp_ms: int

    def is_older_than(self, partition: int, offset: int, timestamp_ms: int) -> bool:
        """Compare offsets within a partition; across partitions, compare with the time of setting aside."""
        if partition == self.origin.partition:
            return offset > self.origin.offset
        return timestamp_ms > self.timestamp_ms


def _key(record: Record) -> bytes:
    return record.key or b""


def content_by(mapping: EventMapping | None) -> ContentOf:
    """Tell contents by the consumer's mapping, which may take the content id from elsewhere than the key.

    What the mapping does not read, and every record without a mapping, is told by its key.
    """
    if mapping is None:
        return _key
    decoder = EventDecoder(mapping=mapping)

    def content_of(record: Record) -> bytes:
        try:
            event = decoder.decode(
                key=record.key, value=record.value, headers=record.headers, timestamp_ms=record.timestamp_ms
            )
        except (BadEvent, UnknownSchema):
            return _key(record)
        return _key(record) if event is None else event.content_id.encode()

    return content_of


@dataclass(slots=True)
class Republishing:
    """Chooses what to publish, in three scans: `offer` the letters, `compare` the topic, take `events`.

    `content_of` tells which records are of one content. `refused` counts the letters that stay, by reason.
    A letter whose value was omitted is never published, because a record without a value deletes its
    content.
    """

    topic: str
    reason: str | None = None
    content_of: ContentOf = _key
    refused: Counter[str] = field(default_factory=Counter)
    _chosen: dict[bytes, Candidate] = field(default_factory=dict)

    def offer(self, letters: Iterable[Record]) -> None:
        """Choose the newest letter of each content, among those of the wanted reason."""
        for record in letters:
            letter = dead_letter_from_record(record)
            if self.reason not in (None, letter.reason):
                continue
            refusal = _refusal(record, letter, self.topic)
            if refusal is not None:
                self.refused[refusal] += 1
            elif letter.origin is not None:
                content = self.content_of(replace(record, headers=headers_of_record(record.headers)))
                self._choose(content, Candidate(letter.position, letter.origin, letter.timestamp_ms))

    def compare(self, records: Iterable[Record]) -> None:
        """Drop every chosen letter whose content has a later record in the topic."""
        for record in records:
            content = self.content_of(record)
            chosen = self._chosen.get(content)
            if chosen and chosen.is_older_than(record.partition, record.offset, record.timestamp_ms):
                del self._chosen[content]
                self.refused[SUPERSEDED] += 1

    def events(self, letters: Iterable[Record]) -> Iterator[LabelledEvent]:
        """Yield the records of the chosen letters, with their own keys, values and headers."""
        positions = {candidate.position for candidate in self._chosen.values()}
        for record in letters:
            position = position_of(record)
            if position in positions and record.key is not None and record.value is not None:
                content_id = record.key.decode(errors="replace")
                encoded = EncodedEvent(record.key, record.value, headers_of_record(record.headers))
                yield LabelledEvent(str(position), content_id, encoded)

    def _choose(self, content: bytes, candidate: Candidate) -> None:
        known = self._chosen.get(content)
        if known is None:
            self._chosen[content] = candidate
        elif known.origin == candidate.origin:
            self.refused[DUPLICATE] += 1
        else:
            origin = candidate.origin
            if known.is_older_than(origin.partition, origin.offset, candidate.timestamp_ms):
                self._chosen[content] = candidate
            self.refused[SUPERSEDED] += 1


def _refusal(record: Record, letter: DeadLetter, topic: str) -> str | None:
    """Return why this letter can never be published, whatever the topic holds; None if it can."""
    if letter.origin is None:
        return "without_origin"
    if letter.origin.topic != topic:
        return "of_another_topic"
    if is_value_omitted(record.headers):
        return "value_omitted"
    if record.value is None:
        return "without_value"
    return "without_key" if record.key is None else None
