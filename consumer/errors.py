"""Why a consumer stops, beyond the errors of the log and the index.

ConsumerError
├── StartRefused          log, index and group contradict each other: an operator decides
├── DeadLetterFlood       too large a share of the records is set aside: something upstream is wrong
├── FencedWhileAssigned   another writer owns a shard whose partition is still ours: begin again
├── AssignmentFailed      a partition could not be taken over in time
├── TakeoverAbandoned     told to stop while log or disk did not answer: no failure
└── ConsumerFault         a defect: an exception that no rule expects; the in-flight set is kept
"""

from __future__ import annotations


class ConsumerError(Exception):
    """The root of the tree."""


class StartRefused(ConsumerError):
    """Going on would lose or repeat something without anybody having said so."""


class DeadLetterFlood(ConsumerError):
    """More of the latest records were set aside than the limit allows."""

    def __init__(self, num_dead_letters: int, num_records: int, reason: str) -> None:
        super().__init__(
            f"{num_dead_letters} of the latest {num_records} records were set aside, "
            f"the last one as {reason}: stopping before more are"
        )
        self.num_dead_letters = num_dead_letters
        self.num_records = num_records
        self.reason = reason


class FencedWhileAssigned(ConsumerError):
    """A greater writer epoch owns the shard, and the group still gives its partition to us."""

    def __init__(self, partition: int) -> None:
        super().__init__(
            f"partition {partition} is assigned to this consumer but another writer owns its shard: "
            "is a second consumer group writing to this index?"
        )
        self.partition = partition


class AssignmentFailed(ConsumerError):
    """Log or disk did not answer while a partition was taken over."""


class TakeoverAbandoned(ConsumerError):
    """Log or disk did not answer while a partition was taken over, and then the consumer was to stop."""


class ConsumerFault(ConsumerError):
    """Decoding, preparing or encoding raised what it never should.

    The record at fault is unknown, so the in-flight set stays on disk and the next
    start handles what it names one at a time.
    """
