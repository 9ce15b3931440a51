"""What can go wrong with an event log, sorted by what the caller does next.

EventLogError
├── TransientLogError     wait and retry: the broker is away, a request timed out
│   ├── RecordUnreadable  wait for an operator, in this partition only: the client cannot hand a record over
│   └── RegistryUnavailable   wait with the records that need a schema: the registry is away
│       └── RegistryRefused   the same, and stop at the start: it does not accept the credentials
├── TopicMissing          create the topic if that is allowed, otherwise name it
├── OffsetOutOfRange      the log does not hold the position: refuse, and name the numbers
├── RecordRefused         the record can never be published as it is: tell its producer
│   └── RecordTooLarge
└── FatalLogError         stop the process: it is fenced, unauthorised or misconfigured
    └── RegistryMisconfigured   the same, because of the settings of the schema registry
"""

from __future__ import annotations


class EventLogError(Exception):
    """The root of the tree."""


class TransientLogError(EventLogError):
    """The operation may succeed when it is tried again."""


class RecordUnreadable(TransientLogError):
    """The client cannot hand over what lies at a position. It tries again; other partitions go on."""

    def __init__(self, topic: str, partition: int, offset: int, detail: str, *, way_on: str) -> None:
        super().__init__(f"{topic}-{partition}@{offset}: the record cannot be read: {detail}: {way_on}")
        self.partition = partition
        self.offset = offset


class RegistryUnavailable(TransientLogError):
    """The schema registry does not answer, or answers with an error. It may answer later."""


class RegistryRefused(RegistryUnavailable):
    """The schema registry does not accept the credentials. An operator may give others, there or here."""


class TopicMissing(EventLogError):
    """The broker does not know the topic."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic!r} does not exist")
        self.topic = topic


class OffsetOutOfRange(EventLogError):
    """A position lies before the start of the log or behind its end."""

    def __init__(self, topic: str, partition: int, detail: str) -> None:
        super().__init__(f"{topic}-{partition}: position out of range ({detail})")
        self.topic = topic
        self.partition = partition


class RecordRefused(EventLogError):
    """The broker takes other records, but not this one: a compacted topic refuses a record without a key."""


class RecordTooLarge(RecordRefused):
    """A record is larger than the broker, the topic or the client accepts."""


class FatalLogError(EventLogError):
    """The operation fails again however often it is tried."""


class RegistryMisconfigured(FatalLogError):
    """What is set for the schema registry cannot be used: not the address of one, or a bad file."""
