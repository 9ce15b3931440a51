"""Whether the topic is still the one that the index is built of. Runs in the intake thread.

When a topic is deleted and created again between two metadata refreshes, the Kafka client goes on
reading at its old position without an error. It also reads partitions that are added. Only the
topic's id and its number of partitions show both.
"""

from __future__ import annotations

import time

from consumer.intake.start_check import check_topic
from event_log.records import TopicDescription
from event_log.source import RecordSource


class TopicWatch:
    """Asks the broker to describe the topic, at each assignment and once in `every_seconds`."""

    def __init__(self, source: RecordSource, expected: TopicDescription, *, every_seconds: float) -> None:
        self._source = source
        self._expected = expected
        self._every_seconds = every_seconds
        self._due_at = time.monotonic() + every_seconds

    @property
    def topic(self) -> str:
        return self._expected.name

    def check(self) -> None:
        """Raise `StartRefused` for another topic of the same name, or what `describe_topic` raises."""
        check_topic(self._expected, self._source.describe_topic(self.topic))
        self._due_at = time.monotonic() + self._every_seconds

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._due_at
