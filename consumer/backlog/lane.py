"""The records of one assigned partition, in offset order. Pure: no lock, no thread."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from consumer.quarantine.inflight import InFlightFile
from consumer.work import Work
from event_log.records import EndOfPartition, Record


@dataclass(slots=True)
class Lane:
    """Works wait to be submitted, then to be ready, then to be taken: always from the left.

    `next_offset` is where the last received work ends, `size_bytes` what all of them hold in
    memory. Offsets below `suspects_below` were under way when a former process died: they are
    submitted one at a time.
    """

    partition: int
    assignment_epoch: int
    next_offset: int
    inflight: InFlightFile
    suspects_below: int = 0
    size_bytes: int = 0
    num_submitted: int = 0
    works: deque[Work] = field(default_factory=deque)
    is_paused: bool = False

    def receive(self, received: Record | EndOfPartition, arrival: int) -> Work | None:
        """Append what was polled; None for a stale epoch and for offsets already here."""
        next_offset = received.next_offset
        if received.assignment_epoch < self.assignment_epoch or next_offset <= self.next_offset:
            return None
        record = received if isinstance(received, Record) else None
        work = Work(
            partition=self.partition,
            assignment_epoch=self.assignment_epoch,
            from_offset=self.next_offset,
            next_offset=next_offset,
            record=record,
            arrival=arrival,
            size_bytes=record.size_bytes if record else 0,
        )
        self.works.append(work)
        self.next_offset = next_offset
        self.size_bytes += work.held_bytes
        return work

    def is_suspect(self, work: Work) -> bool:
        return work.record is not None and work.record.offset < self.suspects_below

    def submittable(self, window: int) -> list[Work]:
        """The next works to submit so that at most `window` are under way; a suspect goes by itself."""
        works: list[Work] = []
        while self.num_submitted + len(works) < min(window, len(self.works)):
            work = self.works[self.num_submitted + len(works)]
            if self.is_suspect(work) and (self.num_submitted or works):
                break
            works.append(work)
            if self.is_suspect(work):
                break
        return works

    def submitted(self, num_works: int) -> None:
        self.num_submitted += num_works

    @property
    def is_ready(self) -> bool:
        """Whether there is a work to take next, and it is ready."""
        return bool(self.works) and self.works[0].is_ready

    def take(self, max_works: int, before_arrival: int | None = None) -> list[Work]:
        """Take the ready works at the front, as far as they arrived before another lane's."""
        taken: list[Work] = []
        while len(taken) < max_works and self.is_ready:
            if before_arrival is not None and self.works[0].arrival > before_arrival:
                break
            taken.append(self.works.popleft())
        self.num_submitted -= len(taken)
        self.size_bytes -= sum(work.held_bytes for work in taken)
        return taken
