"""How a process begins to own a partition. Runs in the intake thread, inside `poll`."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog

from clip_index.content import Delta
from clip_index.errors import CommitUnknown
from consumer.backoff import Backoff
from consumer.errors import AssignmentFailed, TakeoverAbandoned
from consumer.intake.start_check import StartNumbers, StartOptions, check_start, is_beyond_end
from consumer.quarantine.inflight import InFlightFile
from consumer.tasks import Handover
from consumer.telemetry.metrics import Metrics
from consumer.writing.thread import Writing
from event_log.errors import TransientLogError
from event_log.records import LogRange
from event_log.source import RecordSource

ResultT = TypeVar("ResultT")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AssignmentPatience:
    """`take_over_seconds` stays below Kafka's max.poll.interval; `release_seconds` bounds each of a
    revoke's two steps: the batch at hand, and the commits of all its shards together.

    `log_end_seconds` is how long a log that seems to end before our position is asked again.
    """

    take_over_seconds: float = 60.0
    release_seconds: float = 10.0
    log_end_seconds: float = 3.0
    backoff: Backoff = field(default_factory=Backoff)


@dataclass(frozen=True, slots=True)
class TakenOver:
    """A partition that is ours: where to read on, and what its last owner left under way."""

    start: int
    inflight: InFlightFile


class Takeover:
    """Takes partitions over, one at a time, and says where each is read on."""

    def __init__(
        self,
        source: RecordSource,
        writing: Writing,
        *,
        shard_path: Callable[[int], Path],
        options: StartOptions,
        patience: AssignmentPatience,
        metrics: Metrics,
        stops_within: Callable[[float], bool],
    ) -> None:
        self._source = source
        self._writing = writing
        self._shard_path = shard_path
        self._options = options
        self._patience = patience
        self._metrics = metrics
        self._stops_within = stops_within

    def take_over(self, partition: int, assignment_epoch: int) -> TakenOver:
        """Own the shard and check that index, log and group fit together; else `StartRefused`."""
        log = self.persist(lambda: self._source.log_range(partition))
        group = self.persist(lambda: self._source.committed([partition]))[partition]
        next_offset = self.persist(
            lambda: self._writing.take_over(partition, log.first_offset, assignment_epoch).result()
        )
        shard_path = self._shard_path(partition)
        numbers = self._numbers(shard_path.name, partition, next_offset=next_offset, log=log, group=group)
        start = check_start(numbers, self._options)
        if start > next_offset:
            self._writing.hand_over(Handover(partition, assignment_epoch, Delta(next_offset, start)))
        return TakenOver(start, self.persist(lambda: InFlightFile.recover(shard_path, start)))

    def persist(self, action: Callable[[], ResultT]) -> ResultT:
        """Try again while log or disk do not answer; `AssignmentFailed` after `take_over_seconds`.

        `TakeoverAbandoned` when the consumer is to stop meanwhile.
        """
        deadline = time.monotonic() + self._patience.take_over_seconds
        num_failures = 0
        while True:
            try:
                return action()
            except (TransientLogError, OSError, CommitUnknown) as error:
                num_failures += 1
                self._metrics.transient_errors.labels("assignment").inc()
                _log.warning("taking over does not succeed yet", error=str(error))
                if time.monotonic() >= deadline:
                    raise AssignmentFailed(f"a partition could not be taken over: {error}") from error
                if self._stops_within(self._patience.backoff.seconds(num_failures)):
                    raise TakeoverAbandoned(f"stopped before a partition was taken over: {error}") from error

    def _numbers(
        self, shard: str, partition: int, *, next_offset: int, log: LogRange, group: int | None
    ) -> StartNumbers:
        """The numbers to check; a log that seems to end too early is asked again for a while."""
        deadline = time.monotonic() + self._patience.log_end_seconds
        numbers = StartNumbers(shard, next_offset, log, group)
        while self._options.trusts_log_end and is_beyond_end(numbers) and time.monotonic() < deadline:
            time.sleep(0.1)
            numbers = StartNumbers(
                shard, next_offset, self.persist(lambda: self._source.log_range(partition)), group
            )
        return numbers
