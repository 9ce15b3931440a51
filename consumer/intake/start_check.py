"""Where reading a partition starts, or why it must not. Pure.

The manifest alone decides where to start; the log's range and the group's offset are
witnesses that something was lost, recreated or swapped.
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
    """What index, log and group say about one partition."""

    shard: str
    next_offset: int
    log: LogRange
    group_next_offset: int | None


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What an operator has said yes to, once, by name.

    Some brokers' answer about the log's end runs behind, so it is trusted only where nothing
    better tells a recreated log: no topic id. Elsewhere the index refuses another topic id,
    and the broker itself refuses to read from beyond its end.
    """

    accepts_data_loss: bool = False
    accepts_rewind: bool = False
    trusts_log_end: bool = True


def check_start(numbers: StartNumbers, options: StartOptions) -> int:
    """Return the offset to start from; raises `StartRefused` naming the numbers and the way on."""
    _check_end(numbers, options)
    _check_witness(numbers, options)
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
    """Raise `StartRefused` when the topic was recreated or has other partitions than the index."""
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


def _check_witness(numbers: StartNumbers, options: StartOptions) -> None:
    group = numbers.group_next_offset
    if group is None or group <= numbers.next_offset or options.accepts_rewind:
        return
    raise StartRefused(
        f"{numbers.shard}: the consumer group is at {group} but the index goes on at {numbers.next_offset}: "
        "another index root, a restored backup or a lost disk? "
        f"set {ACCEPT_REWIND}=true to read from {numbers.next_offset} again"
    )
