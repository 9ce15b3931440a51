"""How far partitions are behind, and when they have caught up. Runs in the intake thread."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Protocol

from consumer.backlog.backlog import Backlog
from consumer.intake.held_back import HeldBackRecords
from consumer.intake.log_ends import LogEnds
from consumer.notices import Committed
from consumer.tasks import CaughtUp
from consumer.telemetry.metrics import Metrics
from consumer.writing.thread import Writing
from event_log.errors import TransientLogError
from event_log.records import LogRange
from event_log.source import RecordSource


class ShardNames(Protocol):
    """How the shard of a partition is called in metrics."""

    def shard_name(self, partition: int) -> str: ...


class Progress:
    """Asks the broker where each log ends, once in `probe_seconds` for each partition.

    It asks for one partition at a time, because the answer may wait behind a long-polling fetch on
    the same connection (`fetch.wait.max.ms`), and intake waits with it.

    A partition has caught up when everything up to the broker's answer is read. The answer includes what
    an open transaction holds back, so such records count as lag and the watermark does not pass them.
    An end-of-partition event does not show that a partition has caught up: it may be older than the
    poll that returns it, and it does not come again while the platform is quiet, so that a quiet
    platform would look like an outage.
    """

    def __init__(
        self,
        backlog: Backlog,
        *,
        shard_names: ShardNames,
        writing: Writing,
        metrics: Metrics,
        probe_seconds: float,
    ) -> None:
        self._backlog = backlog
        self._shard_names = shard_names
        self._writing = writing
        self._metrics = metrics
        self._probe_seconds = probe_seconds
        self._probe_due_at = 0.0
        self._num_probes = 0
        self._committed: dict[int, Committed] = {}
        self._ends: dict[int, LogEnds] = {}
        self._held_back: dict[int, HeldBackRecords] = {}
        self._unanswered: set[int] = set()

    def committed(self, committed: Committed) -> None:
        self._committed[committed.partition] = committed

    def follow(self, source: RecordSource) -> None:
        """Ask where the next partition's log ends, if that is due. Waits out a log that does not answer."""
        now = time.monotonic()
        partitions = self._backlog.partitions
        self._forget_others(partitions)
        if not partitions or now < self._probe_due_at:
            return
        self._probe_due_at = now + self._probe_seconds / len(partitions)
        self._num_probes += 1
        self._probe(source, partitions[self._num_probes % len(partitions)])

    def _forget_others(self, partitions: Collection[int]) -> None:
        for partition in self._ends.keys() - set(partitions):
            del self._ends[partition]
        self._held_back = {p: held for p, held in self._held_back.items() if p in partitions}
        for partition in self._unanswered - set(partitions):
            self._answered(partition)

    def _probe(self, source: RecordSource, partition: int) -> None:
        now, asked_at = time.monotonic(), time.time()
        try:
            log = source.log_range(partition)
        except TransientLogError as error:
            self._unanswered.add(partition)
            self._metrics.outages.failed("log", error, part=self._shard_names.shard_name(partition))
            self._report_growing_lag(partition)
            return
        self._answered(partition)
        end = log.next_offset
        self._report_held_back(partition, log, now)
        self._report_lag(partition, end, now)
        position, epoch = self._backlog.position(partition), self._backlog.epoch(partition)
        if position is not None and epoch is not None and end <= position:
            self._writing.caught_up(CaughtUp(partition, epoch, position, asked_at))

    def _answered(self, partition: int) -> None:
        self._unanswered.discard(partition)
        self._metrics.outages.ended("log", part=self._shard_names.shard_name(partition))

    def _report_held_back(self, partition: int, log: LogRange, now: float) -> None:
        shard = self._shard_names.shard_name(partition)
        self._held_back.setdefault(partition, HeldBackRecords(shard)).observe(log, now=now)
        if partition in self._committed:  # before that, another process may still export this shard
            self._metrics.held_back_records.labels(shard).set(log.num_held_back)

    def _report_lag(self, partition: int, end: int, now: float) -> None:
        committed = self._committed.get(partition)
        if committed is None:
            return
        self._ends.setdefault(partition, LogEnds()).observe(end, now=now)
        self._report_seconds(committed, now)
        shard = self._shard_names.shard_name(partition)
        self._metrics.lag_records.labels(shard).set(max(end - committed.next_offset, 0))

    def _report_growing_lag(self, partition: int) -> None:
        """Without an answer nobody knows whether the log has grown, so the lag in seconds grows."""
        committed = self._committed.get(partition)
        if committed is not None and partition in self._ends:
            self._report_seconds(committed, time.monotonic())

    def _report_seconds(self, committed: Committed, now: float) -> None:
        ends, shard = self._ends[committed.partition], self._shard_names.shard_name(committed.partition)
        newest_age = time.time() - committed.newest_timestamp_ms / 1000
        seconds = ends.seconds_behind(committed.next_offset, newest_age=newest_age, now=now)
        self._metrics.lag_seconds.labels(shard).set(seconds)
