"""Where reading a partition starts, or why it is refused. Pure.

The manifest alone decides where to start. The log's range and the group's offset are compared with
it, because a contradiction shows that something was lost, recreated or swapped.
"""

from __future__ import annotations

from dataclasses import dataclass

from consumer.errors import StartRefused
from event_log.records import LogRange, TopicDescription

ACCEPT_DATA_LOSS = "CLIPTIDE_CONSUMER__ACCEPT_DATA_LOSS"
ACCEPT_REWIND = "CLIPTIDE_CONSUMER__ACCEPT_REWIND"
INDEX_ID = "CLIPTIDE_INDEX__ID"


@dataclass(frozen=True, slots=True)
class StartNumbers:
    """What index, log and group say about the position in one partition."""

    shard: str
    next_offset: int
    log: LogRange
    group_next_offset: int | None


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What the operator accepts, and whether the log's end is trusted.

    Some brokers answer an old log end. So the log's end is trusted only when topics have no id and
    nothing else shows that a log was recreated. With a topic id the index refuses another id, and
    the broker refuses to read beyond its log's end.
    """

    accepts_data_loss: bool = False
    accepts_rewind: bool = False
    trusts_log_end: bool = True


def check_start(numbers: StartNumbers, options: StartOptions) -> int:
    """Return the offset to start from, or raise `StartRefused` with the numbers and the way on."""
    _check_end(numbers, options)
    _check_group(numbers, options)
    if numbers.next_offset >= numbers.log.first_offset:
        return numbers.next_offset
    if not options.accepts_data_loss:
        raise StartRefused(
            f"{numbers.shard}: the index goes on at {numbers.next_offset} but the log begins at "
            f"{numbers.log.first_offset}: {numbers.log.first_offset - numbers.next_offset} offsets are gone; "
            f"set {ACCEPT_DATA_LOSS}=true to go on without them"
        )
    return numbers.log.first_offset


def check_topic(expected: TopicDescription, found: TopicDescription) -> None:
    """Raise `StartRefused` when the topic was recreated, or has another number of partitions."""
    if found == expected:
        return
    raise StartRefused(
        f"{expected.name}: the index is built of topic id {expected.topic_id} with "
        f"{expected.num_partitions} partitions, but now the log has topic id {found.topic_id} with "
        f"{found.num_partitions}: build an index of it under another {INDEX_ID}"
    )


def is_beyond_end(numbers: StartNumbers) -> bool:
    return numbers.next_offset > numbers.log.next_offset


def _check_end(numbers: StartNumbers, options: StartOptions) -> None:
    if options.trusts_log_end and is_beyond_end(numbers):
        raise StartRefused(
            f"{numbers.shard}: the index goes on at {numbers.next_offset} but the log ends at "
            f"{numbers.log.next_offset}: was the topic recreated? "
            f"build an index of the new log under another {INDEX_ID}"
        )


def _check_group(numbers: StartNumbers, options: StartOptions) -> None:
    group = numbers.group_next_offset
    if group is None or group <= numbers.next_offset or options.accepts_rewind:
        return
    raise StartRefused(
        f"{numbers.shard}: the consumer group is at {group} but the index goes on at {numbers.next_offset}: "
        "another index root, a restored backup or a lost disk? "
        f"set {ACCEPT_REWIND}=true to read from {numbers.next_offset} again"
    )
