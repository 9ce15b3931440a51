"""Submits tasks to preparation, and suspects one at a time. Runs in the intake thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clip_index.encoder.protocol import Encoder
from consumer.backlog.backlog import Backlog
from consumer.backlog.lane import Lane
from consumer.dead_letters.dead_letter import SetAside
from consumer.preparation.steps import Preparation
from consumer.quarantine.handling import NormalHandling, QuarantineHandling
from consumer.quarantine.inflight import MAX_DEATHS
from consumer.quarantine.risk_gate import RiskGate
from consumer.tasks import Task
from consumer.telemetry.metrics import Metrics

_GROUP_TASKS = 32
_GROUP_BYTES = 32 * 1024


class Dispatcher:
    """Keeps preparation busy, and names each task in the in-flight file before it is submitted."""

    def __init__(
        self,
        backlog: Backlog,
        preparation: Preparation,
        *,
        gate: RiskGate,
        encoder: Encoder,
        metrics: Metrics,
    ) -> None:
        self._backlog = backlog
        self._preparation = preparation
        self._gate = gate
        self._normal = NormalHandling(gate)
        self._encoder = encoder
        self._metrics = metrics

    def dispatch(self) -> None:
        """Submit what the windows allow.

        Raises `OSError` when an in-flight file cannot be written, after the other lanes are served.
        """
        failure: OSError | None = None
        for lane, tasks in self._backlog.submittable():
            try:
                lane.inflight.name(tasks[-1].next_offset)
            except OSError as error:
                failure = error
            else:
                self._submit_of_lane(lane, tasks)
        if failure is not None:
            raise failure

    def _submit_of_lane(self, lane: Lane, tasks: Sequence[Task]) -> None:
        self._backlog.submitted(lane, len(tasks))
        if lane.is_suspect(tasks[0]):
            self._submit_suspect(lane, tasks[0])
        else:
            self._submit(tasks)

    def _submit(self, tasks: Sequence[Task]) -> None:
        for group in grouped(tasks):
            self._preparation.submit(group, self._normal)

    def _submit_suspect(self, lane: Lane, task: Task) -> None:
        """Submit a suspect, while no other task of its lane is under way."""
        assert task.record is not None
        self._metrics.quarantined.inc()
        offset = task.record.offset
        if lane.inflight.state.kills(offset):
            task.outcome = _killer()
            self._backlog.notify()
        else:
            quarantine = QuarantineHandling(
                self._gate, self._encoder, inflight=lane.inflight, offset=offset, metrics=self._metrics
            )
            self._preparation.submit([task], quarantine)


def grouped(tasks: Sequence[Task]) -> Iterator[list[Task]]:
    """Split tasks into groups, each for one thread: small records together, a large one by itself."""
    group: list[Task] = []
    room = _GROUP_BYTES
    for task in tasks:
        if group and (len(group) == _GROUP_TASKS or task.size_bytes > room):
            yield group
            group, room = [], _GROUP_BYTES
        group.append(task)
        room -= task.size_bytes
    if group:
        yield group


def _killer() -> SetAside:
    detail = f"{MAX_DEATHS} processes died while they handled nothing but this record"
    return SetAside("kills_process", detail, "quarantine", "consumer.quarantine.inflight.KillsProcess")
