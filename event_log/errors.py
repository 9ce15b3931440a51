"""What can go wrong with an event log, sorted by what the caller does next.

EventLogError
├── TransientLogError     wait and retry: the broker is away, a request timed out
├── TopicMissing          create it when allowed, else name it
├── OffsetOutOfRange      the position is not in the log: refuse, naming the numbers
├── RecordTooLarge        the record can never be published: answer its producer
└── FatalLogError         stop the process: fenced, unauthorised, misconfigured
"""

from __future__ import annotations


class EventLogError(Exception):
    """The root of the tree."""


class TransientLogError(EventLogError):
    """Worth retrying."""


class TopicMissing(EventLogError):
    """The broker knows no such topic."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} does not exist")
        self.topic = topic


class OffsetOutOfRange(EventLogError):
    """A start position below the log's start or above its end."""

    def __init__(self, topic: str, partition: int, detail: str) -> None:
        super().__init__(f"{topic}-{partition}: position out of range ({detail})")
        self.topic = topic
        self.partition = partition


class RecordTooLarge(EventLogError):
    """Larger than the broker or the client accepts."""


class FatalLogError(EventLogError):
    """Not worth retrying."""
