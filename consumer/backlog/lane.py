"""The tasks of one assigned partition, in offset order. Pure: no lock, no thread."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from consumer.quarantine.inflight import InFlightFile
from consumer.tasks import Task
from event_log.records import EndOfPartition, Record


@dataclass(slots=True)
class Lane:
    """A queue of tasks: they are appended on the right, and submitted and taken from the left.

    `next_offset` is where the last received task ends. `size_bytes` is what all tasks hold in
    memory. The `suspects` were in flight when a former process died; they are submitted one at a
    time.
    """

    partition: int
    assignment_epoch: int
    next_offset: int
    inflight: InFlightFile
    suspects: range = range(0)
    size_bytes: int = 0
    num_submitted: int = 0
    tasks: deque[Task] = field(default_factory=deque)
    is_paused: bool = False

    def receive(self, received: Record | EndOfPartition, arrival: int) -> Task | None:
        """Append what was polled; None if it is of an older assignment or its offsets are here already."""
        next_offset = received.next_offset
        if received.assignment_epoch < self.assignment_epoch or next_offset <= self.next_offset:
            return None
        record = received if isinstance(received, Record) else None
        task = Task(
            partition=self.partition,
            assignment_epoch=self.assignment_epoch,
            from_offset=self.next_offset,
            next_offset=next_offset,
            record=record,
            arrival=arrival,
            size_bytes=record.size_bytes if record else 0,
        )
        self.tasks.append(task)
        self.next_offset = next_offset
        self.size_bytes += task.held_bytes
        return task

    def is_suspect(self, task: Task) -> bool:
        return task.record is not None and task.record.offset in self.suspects

    def submittable(self, window: int) -> list[Task]:
        """The next tasks to submit, so that at most `window` are under way. A suspect is submitted alone."""
        tasks: list[Task] = []
        while self.num_submitted + len(tasks) < min(window, len(self.tasks)):
            task = self.tasks[self.num_submitted + len(tasks)]
            if self.is_suspect(task) and (self.num_submitted or tasks):
                break
            tasks.append(task)
            if self.is_suspect(task):
                break
        return tasks

    def submitted(self, num_tasks: int) -> None:
        self.num_submitted += num_tasks

    @property
    def waits_because(self) -> str | None:
        """Why the first task, and so the partition, waits; None if it does not."""
        return self.tasks[0].waits_because if self.tasks else None

    @property
    def is_ready(self) -> bool:
        """Whether the first task is there and ready to be taken."""
        return bool(self.tasks) and self.tasks[0].is_ready

    def take(self, max_tasks: int, before_arrival: int | None = None) -> list[Task]:
        """Take the ready tasks on the left, up to the first that arrived after `before_arrival`."""
        taken: list[Task] = []
        while len(taken) < max_tasks and self.is_ready:
            if before_arrival is not None and self.tasks[0].arrival > before_arrival:
                break
            taken.append(self.tasks.popleft())
        self.num_submitted -= len(taken)
        self.size_bytes -= sum(task.held_bytes for task in taken)
        return taken
