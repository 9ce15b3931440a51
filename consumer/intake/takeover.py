"""How a partition becomes ours. Runs in the intake thread, inside `poll`.

A takeover is three steps, each inside the one before:

1. **Begin the partition** (`Takeover.begin_partition`, intake thread): ask where its log begins and
   ends and what the group has committed, open the shard, check that all of it fits together, and
   read which records its last owner left in flight.
2. **Open the shard** (`Writing.open_shard`, writer thread): close a shard of an earlier assignment,
   and own this one from now on.
3. **Become its owner** (`Shards.become_owner`, writer thread): commit a takeover generation, which
   fences a former owner.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from clip_index.content import Delta
from consumer.intake.patience import TakeoverRetry
from consumer.intake.start_check import StartNumbers, StartOptions, check_start, is_beyond_end
from consumer.intake.topic_watch import TopicWatch
from consumer.quarantine.inflight import InFlightFile, SharedInFlight
from consumer.tasks import AssignedPartition, Handover
from consumer.writing.thread import Writing
from event_log.source import RecordSource

_ASK_AGAIN_SECONDS = 0.1


class ShardPaths(Protocol):
    """Where this process keeps the in-flight file of a shard."""

    def shard_path(self, partition: int) -> Path: ...

    def shared_inflight(self, partition: int) -> SharedInFlight | None:
        """Return the file that all machines see; None where they see the first one."""
        ...


@dataclass(frozen=True, slots=True)
class BegunPartition:
    """A partition that is ours: where to read on, and what its last owner left in flight."""

    start: int
    inflight: InFlightFile


class StartFinder:
    """Finds where reading starts, and asks again while the log seems to end before our position."""

    def __init__(
        self, source: RecordSource, retry: TakeoverRetry, *, options: StartOptions, log_end_seconds: float
    ) -> None:
        self._source = source
        self._retry = retry
        self._options = options
        self._log_end_seconds = log_end_seconds

    def find(self, partition: int, numbers: StartNumbers) -> int:
        """Return the offset to start from; raises `StartRefused`."""
        deadline = time.monotonic() + self._log_end_seconds
        while self._is_doubtful(numbers) and time.monotonic() < deadline:
            time.sleep(_ASK_AGAIN_SECONDS)
            log = self._retry.until_done(lambda: self._source.log_range(partition))
            numbers = replace(numbers, log=log)
        return check_start(numbers, self._options)

    def _is_doubtful(self, numbers: StartNumbers) -> bool:
        return self._options.trusts_log_end and is_beyond_end(numbers)


class Takeover:
    """Takes partitions over, one at a time."""

    def __init__(
        self,
        source: RecordSource,
        writing: Writing,
        *,
        topic_watch: TopicWatch,
        shard_paths: ShardPaths,
        start_finder: StartFinder,
        retry: TakeoverRetry,
    ) -> None:
        self._source = source
        self._writing = writing
        self._topic_watch = topic_watch
        self._shard_paths = shard_paths
        self._start_finder = start_finder
        self._retry = retry

    def check_topic(self) -> None:
        """Raises `StartRefused` unless the topic is the one that the index is built of."""
        self._retry.until_done(self._topic_watch.check)

    def begin_partition(self, partition: int, assignment_epoch: int) -> BegunPartition:
        """Step 1. Raises `StartRefused` when index, log and group do not fit together."""
        log = self._retry.until_done(lambda: self._source.log_range(partition))
        group = self._retry.until_done(lambda: self._source.committed([partition]))[partition]
        assigned = AssignedPartition(partition, assignment_epoch, log.first_offset)
        next_offset = self._retry.until_done(lambda: self._writing.open_shard(assigned).result())
        shard_path = self._shard_paths.shard_path(partition)
        numbers = StartNumbers(shard_path.name, next_offset, log, group)
        start = self._start_finder.find(partition, numbers)
        if start > next_offset:  # the records between are gone, and an operator has accepted it
            self._writing.hand_over(Handover(partition, assignment_epoch, Delta(next_offset, start)))
        shared = self._shard_paths.shared_inflight(partition)
        inflight = self._retry.until_done(lambda: InFlightFile.recover(shard_path, start, shared))
        return BegunPartition(start, inflight)
