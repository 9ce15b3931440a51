"""Records that are read and not yet encoded. Intake puts them in, the encoder thread takes them out."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from consumer.backlog.lane import Lane
from consumer.quarantine.inflight import InFlightFile
from consumer.tasks import Task
from consumer.tracing import RecordTracing
from event_log.records import EndOfPartition, Record


@dataclass(frozen=True, slots=True)
class BacklogLimits:
    """Bounds over all partitions. Each has an equal share, so that one that waits cannot starve others.

    `max_bytes` bounds the records that are read. `max_prepared` bounds the tasks that are being
    prepared or are prepared; a prepared picture takes about 150 kB.
    """

    max_bytes: int = 256 * 1024 * 1024
    max_prepared: int = 512


@dataclass(frozen=True, slots=True)
class FlowChange:
    """Partitions to pause because their share is full, and to resume because half of it is free."""

    pause: frozenset[int] = frozenset()
    resume: frozenset[int] = frozenset()


class Backlog:
    """One lane for each assigned partition. Thread-safe. Without `tracing` no record is traced."""

    def __init__(self, limits: BacklogLimits, tracing: RecordTracing | None = None) -> None:
        self._limits = limits
        self._tracing = tracing
        self._lanes: dict[int, Lane] = {}
        self._changed = threading.Condition()
        self._num_arrivals = 0
        self._is_woken = False

    def open(self, partition: int, assignment_epoch: int, next_offset: int, inflight: InFlightFile) -> None:
        with self._changed:
            self._lanes[partition] = Lane(
                partition, assignment_epoch, next_offset, inflight, inflight.suspects
            )

    def close(self, partition: int) -> None:
        """Forget the partition's tasks and cancel them; their outcomes are no longer wanted."""
        with self._changed:
            lane = self._lanes.pop(partition, None)
            tasks = list(lane.tasks) if lane else []
        for task in tasks:
            task.cancel()

    @property
    def partitions(self) -> list[int]:
        with self._changed:
            return list(self._lanes)

    def receive(self, received: Iterable[Record | EndOfPartition]) -> None:
        """Append polled records; drop those of closed partitions and of older assignments."""
        with self._changed:
            for one in received:
                lane = self._lanes.get(one.partition)
                if lane is None or (task := lane.receive(one, self._num_arrivals)) is None:
                    continue
                self._num_arrivals += 1
                if self._tracing is not None and task.record is not None and task.record.headers:
                    task.trace = self._tracing.begin(task.record)

    def submittable(self) -> list[tuple[Lane, list[Task]]]:
        """The next tasks that each lane's window leaves room for."""
        with self._changed:
            window = max(self._limits.max_prepared // max(len(self._lanes), 1), 1)
            found = [(lane, lane.submittable(window)) for lane in self._lanes.values()]
            return [(lane, tasks) for lane, tasks in found if tasks]

    def submitted(self, lane: Lane, num_tasks: int) -> None:
        """The lane's next tasks are under way from now on. Call this before any of them can settle."""
        with self._changed:
            lane.submitted(num_tasks)

    def notify(self) -> None:
        """Wake the encoder thread, because tasks have settled."""
        with self._changed:
            self._changed.notify_all()

    def take(self, max_tasks: int, timeout_seconds: float) -> list[Task]:
        """Wait for ready tasks, and return them in order of arrival."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_woken or self._has_ready(), timeout_seconds)
            self._is_woken = False
            tasks: list[Task] = []
            while len(tasks) < max_tasks and (ready := self._ready_lanes()):
                before = ready[1].tasks[0].arrival if len(ready) > 1 else None
                tasks += ready[0].take(max_tasks - len(tasks), before_arrival=before)
            return tasks

    def wake(self) -> None:
        """Make a waiting `take` return."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    @property
    def is_under_way(self) -> bool:
        """Whether any submitted task is not taken yet, in a partition that does not wait."""
        with self._changed:
            lanes = self._lanes.values()
            return any(lane.num_submitted and lane.waits_because is None for lane in lanes)

    @property
    def waiting(self) -> dict[int, str]:
        """The partitions that wait because of a record, and why."""
        with self._changed:
            reasons = {lane.partition: lane.waits_because for lane in self._lanes.values()}
        return {partition: reason for partition, reason in reasons.items() if reason is not None}

    @property
    def size_bytes(self) -> int:
        with self._changed:
            return sum(lane.size_bytes for lane in self._lanes.values())

    def position(self, partition: int) -> int | None:
        """The next offset to read; None when the partition is closed."""
        with self._changed:
            lane = self._lanes.get(partition)
            return lane.next_offset if lane else None

    def epoch(self, partition: int) -> int | None:
        """The assignment epoch of the partition; None when it is closed."""
        with self._changed:
            lane = self._lanes.get(partition)
            return lane.assignment_epoch if lane else None

    def flow_change(self) -> FlowChange:
        """What to pause and resume now. The intake thread must do it, because lanes remember it as done."""
        with self._changed:
            share = self._limits.max_bytes // max(len(self._lanes), 1)
            lanes = self._lanes.values()
            pause = [lane for lane in lanes if not lane.is_paused and lane.size_bytes >= share]
            resume = [lane for lane in lanes if lane.is_paused and lane.size_bytes <= share // 2]
            for lane in (*pause, *resume):
                lane.is_paused = not lane.is_paused
        return FlowChange(
            frozenset(lane.partition for lane in pause), frozenset(lane.partition for lane in resume)
        )

    def _has_ready(self) -> bool:
        return any(lane.is_ready for lane in self._lanes.values())

    def _ready_lanes(self) -> list[Lane]:
        """The lanes whose next task is ready, in order of arrival of that task."""
        ready = [lane for lane in self._lanes.values() if lane.is_ready]
        return sorted(ready, key=lambda lane: lane.tasks[0].arrival)
