"""Reads a whole topic and folds it, without the records that the consumer has set aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cliptide.dead_letters.reading import TopicScan, dead_letter_from_record
from cliptide.terminal.connections import open_source
from cliptide.verify.verification import LogFold
from event_log.errors import TopicMissing
from event_log.kafka.settings import KafkaSettings
from schemas.codec import EventDecoder


@dataclass(frozen=True, slots=True)
class LogTopics:
    """A topic of uploads, and the topic of its dead letters."""

    uploads: str
    dead_letters: str


def fold_log(
    kafka: KafkaSettings, topics: LogTopics, covered: Mapping[int, range], decoder: EventDecoder
) -> LogFold:
    """Return the fold of the covered records that the log holds. Raises an `EventLogError`."""
    folded = LogFold(covered, _set_aside(kafka, topics), decoder)
    with open_source(kafka) as source:
        scan = TopicScan(source, topics.uploads)
        for record in scan.records():
            folded.add(record)
    folded.log_starts = scan.first_offsets
    return folded


def _set_aside(kafka: KafkaSettings, topics: LogTopics) -> set[tuple[int, int]]:
    """Return the partitions and offsets of the records that the consumer set aside."""
    with open_source(kafka) as source:
        try:
            letters = [dead_letter_from_record(r) for r in TopicScan(source, topics.dead_letters).records()]
        except TopicMissing:
            return set()
    origins = (letter.origin for letter in letters)
    return {
        (origin.partition, origin.offset) for origin in origins if origin and origin.topic == topics.uploads
    }
