"""Taking partitions over and giving them away. Runs in the intake thread, inside `poll`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import structlog

from consumer.backlog.backlog import Backlog
from consumer.encoding.thread import Encoding
from consumer.intake.takeover import Takeover
from consumer.quarantine.inflight import InFlightFile
from consumer.writing.thread import Writing
from event_log.errors import EventLogError
from event_log.source import RecordSource

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stages:
    """What a partition's records pass through, in this order; a revoke empties them in the same."""

    backlog: Backlog
    encoding: Encoding
    writing: Writing


class Assignment:
    """The source's listener: opens and closes lanes and shards in step with the group."""

    def __init__(
        self,
        takeover: Takeover,
        stages: Stages,
        *,
        source: RecordSource,
        check_topic: Callable[[], None],
        release_seconds: float,
        has_faulted: Callable[[], bool],
    ) -> None:
        self._takeover = takeover
        self._stages = stages
        self._source = source
        self._check_topic = check_topic
        self._release_seconds = release_seconds
        self._has_faulted = has_faulted
        self._inflight: dict[int, InFlightFile] = {}
        self._assigned: set[int] = set()

    @property
    def partitions(self) -> frozenset[int]:
        """What the group gives us, fenced shards included."""
        return frozenset(self._assigned)

    def partitions_assigned(self, partitions: Collection[int], assignment_epoch: int) -> Mapping[int, int]:
        self._takeover.persist(self._check_topic)
        starts = {partition: self._begin(partition, assignment_epoch) for partition in sorted(partitions)}
        self._assigned.update(starts)
        return starts

    def partitions_revoked(self, partitions: Collection[int]) -> None:
        """Stop intake, commit what is encoded, close the writers; then, and only then, answer."""
        for partition in partitions:
            self._stages.backlog.close(partition)
        self._stages.encoding.settle(self._release_seconds)
        deadline = time.monotonic() + self._release_seconds
        committed: dict[int, int] = {}
        for partition in partitions:
            patience_seconds = max(deadline - time.monotonic(), 0.0)
            next_offset = self._stages.writing.release(partition, patience_seconds).result()
            if next_offset is not None:
                committed[partition] = next_offset
                self._end_well(partition)
        self._forget(partitions)
        self._publish_positions(committed)
        _log.info("partitions revoked", partitions=sorted(partitions))

    def partitions_lost(self, partitions: Collection[int]) -> None:
        """Drop without committing. The in-flight files already belong to the next owner."""
        for partition in partitions:
            self._stages.backlog.close(partition)
            self._stages.writing.drop(partition).result()
        self._forget(partitions)
        _log.warning("partitions lost", partitions=sorted(partitions))

    def _begin(self, partition: int, assignment_epoch: int) -> int:
        taken = self._takeover.take_over(partition, assignment_epoch)
        self._inflight[partition] = taken.inflight
        self._stages.backlog.open(partition, assignment_epoch, taken.start, taken.inflight)
        return taken.start

    def _end_well(self, partition: int) -> None:
        """Nothing is suspect, unless a fault is why we stop: then the next start looks for its cause."""
        inflight = self._inflight.get(partition)
        if inflight is None or self._has_faulted():
            return
        try:
            inflight.clear()
        except OSError as error:
            _log.warning("in-flight set not cleared", partition=partition, error=str(error))

    def _forget(self, partitions: Collection[int]) -> None:
        for partition in partitions:
            inflight = self._inflight.pop(partition, None)
            if inflight is not None:
                inflight.close()
            self._assigned.discard(partition)

    def _publish_positions(self, next_offsets: Mapping[int, int]) -> None:
        try:
            self._source.commit(next_offsets)
        except EventLogError as error:
            _log.warning("offset commit failed", error=str(error))
