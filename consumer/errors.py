"""Why a consumer stops, in addition to the errors of the log and the index.

ConsumerError
├── StartRefused          log, index and group contradict each other: an operator decides
├── DeadLetterFlood       too large a share of the records is set aside: something upstream is wrong
├── FencedWhileAssigned   another writer owns a shard of an assigned partition: start again
├── AssignmentFailed      a partition could not be taken over in time: look at log and disk
├── TakeoverAbandoned     the consumer was told to stop during a takeover: an ordinary stop
└── ConsumerFault         a defect, an exception that no rule expects: the in-flight set is kept
"""

from __future__ import annotations


class ConsumerError(Exception):
    """The root of the tree."""


class StartRefused(ConsumerError):
    """Going on would lose or repeat records, and no operator has accepted that."""


class DeadLetterFlood(ConsumerError):
    """More of the latest records were set aside than the limit allows."""

    def __init__(self, num_dead_letters: int, num_records: int, reason: str, position: str = "") -> None:
        last = f"the last one ({position})" if position else "the last one"
        super().__init__(
            f"{num_dead_letters} of the latest {num_records} records were set aside, {last} as {reason}: "
            "stopping before more are set aside; correct the cause and start again, or set "
            "CLIPTIDE_CONSUMER__FLOOD_SHARE=1 to set such records aside without a limit"
        )
        self.num_dead_letters = num_dead_letters
        self.num_records = num_records
        self.reason = reason


class FencedWhileAssigned(ConsumerError):
    """Another process has become the shard's owner, but its partition is still assigned to this one."""

    def __init__(self, partition: int) -> None:
        super().__init__(
            f"partition {partition} is assigned to this consumer but another writer owns its shard: "
            "is a second consumer group writing to this index?"
        )
        self.partition = partition


class AssignmentFailed(ConsumerError):
    """Log or disk did not answer in time while a partition was taken over."""


class TakeoverAbandoned(ConsumerError):
    """The consumer was told to stop while a takeover waited for log or disk."""


class ConsumerFault(ConsumerError):
    """A step raised an exception that no rule expects.

    Which record is the cause is unknown. Therefore the in-flight set stays on disk, and the next
    start handles the records in it one at a time.
    """
