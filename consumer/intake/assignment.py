"""Takes partitions over and gives them away. Runs in the intake thread, inside `poll`."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import structlog

from consumer.backlog.backlog import Backlog
from consumer.encoding.thread import Encoding
from consumer.intake.takeover import Takeover
from consumer.pipeline_state import PipelineState
from consumer.quarantine.inflight import InFlightFile
from consumer.writing.thread import Writing
from event_log.errors import EventLogError
from event_log.source import RecordSource

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RecordPath:
    """What each record passes through, in this order. A revoke empties it in the same order."""

    backlog: Backlog
    encoding: Encoding
    writing: Writing


class Assignment:
    """Opens and closes lanes and shards as the group assigns and revokes partitions."""

    def __init__(
        self,
        takeover: Takeover,
        path: RecordPath,
        *,
        source: RecordSource,
        release_seconds: float,
        state: PipelineState,
    ) -> None:
        self._takeover = takeover
        self._path = path
        self._source = source
        self._release_seconds = release_seconds
        self._state = state
        self._inflight: dict[int, InFlightFile] = {}
        self._assigned: set[int] = set()

    @property
    def partitions(self) -> frozenset[int]:
        """The partitions that the group gives us, those of fenced shards included."""
        return frozenset(self._assigned)

    def note_committed(self, partition: int, next_offset: int) -> None:
        """Tell the in-flight file of a partition that is still ours what is committed."""
        if (inflight := self._inflight.get(partition)) is not None:
            inflight.note_committed(next_offset)

    def partitions_assigned(self, partitions: Collection[int], assignment_epoch: int) -> Mapping[int, int]:
        self._takeover.check_topic()
        starts = {partition: self._begin(partition, assignment_epoch) for partition in sorted(partitions)}
        self._assigned.update(starts)
        return starts

    def partitions_revoked(self, partitions: Collection[int]) -> None:
        """Stop reading, commit what is encoded, close the shards; only then answer the group."""
        for partition in partitions:
            self._path.backlog.close(partition)
        self._path.encoding.settle(self._release_seconds)
        committed = self._release_shards(partitions)
        self._forget(partitions)
        self._publish_positions(committed)
        _log.info("partitions revoked", partitions=sorted(partitions))

    def partitions_lost(self, partitions: Collection[int]) -> None:
        """Drop everything without committing: the shards and in-flight files have other owners already."""
        for partition in partitions:
            self._path.backlog.close(partition)
            self._path.writing.drop(partition).result()
        self._forget(partitions)
        _log.warning("partitions lost", partitions=sorted(partitions))

    def _begin(self, partition: int, assignment_epoch: int) -> int:
        begun = self._takeover.begin_partition(partition, assignment_epoch)
        self._inflight[partition] = begun.inflight
        self._path.backlog.open(partition, assignment_epoch, begun.start, begun.inflight)
        return begun.start

    def _release_shards(self, partitions: Collection[int]) -> dict[int, int]:
        """Commit and close the shards; return the next offset of each one that was still ours."""
        deadline = time.monotonic() + self._release_seconds
        committed: dict[int, int] = {}
        for partition in partitions:
            patience_seconds = max(deadline - time.monotonic(), 0.0)
            next_offset = self._path.writing.release(partition, patience_seconds).result()
            if next_offset is not None:
                committed[partition] = next_offset
                self._clear_inflight(partition)
        return committed

    def _clear_inflight(self, partition: int) -> None:
        """A partition that ends well leaves no suspects.

        After a fault the in-flight set stays, because the next start looks for the cause in it.
        """
        inflight = self._inflight.get(partition)
        if inflight is None or self._state.has_faulted():
            return
        try:
            inflight.clear()
        except OSError as error:
            _log.warning("in-flight file could not be removed", partition=partition, error=str(error))

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
