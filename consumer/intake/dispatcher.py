"""Submits works to preparation, suspects apart. Runs in the intake thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from clip_index.encoder.protocol import Encoder
from consumer.backlog.backlog import Backlog
from consumer.backlog.lane import Lane
from consumer.dead_letters.dead_letter import SetAside
from consumer.preparation.steps import Preparation
from consumer.quarantine.handling import Alone, Together
from consumer.quarantine.inflight import MAX_DEATHS
from consumer.quarantine.risk_gate import RiskGate
from consumer.telemetry.metrics import Metrics
from consumer.work import Work

_GROUP_WORKS = 32
_GROUP_BYTES = 32 * 1024


class Dispatcher:
    """Keeps preparation busy, and the in-flight set on disk ahead of it."""

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
        self._together = Together(gate)
        self._encoder = encoder
        self._metrics = metrics

    def dispatch(self) -> None:
        """Submit what the windows allow; `OSError` when the in-flight set cannot be written."""
        for lane, works in self._backlog.submittable():
            lane.inflight.name(works[-1].next_offset)
            self._backlog.submitted(lane, len(works))
            if lane.is_suspect(works[0]):
                self._submit_suspect(lane, works[0])
            else:
                self._submit(works)

    def _submit(self, works: Sequence[Work]) -> None:
        for group in grouped(works):
            self._preparation.submit(group, self._together)

    def _submit_suspect(self, lane: Lane, work: Work) -> None:
        """A suspect is the only work of its lane that is under way."""
        assert work.record is not None
        self._metrics.quarantined.inc()
        offset = work.record.offset
        if lane.inflight.state.kills(offset):
            work.outcome = _killer()
            self._backlog.notify()
        else:
            alone = Alone(self._gate, self._encoder, lane.inflight, offset, self._metrics)
            self._preparation.submit([work], alone)


def grouped(works: Sequence[Work]) -> Iterator[list[Work]]:
    """Groups for one thread each: small records go together, a large one by itself."""
    group: list[Work] = []
    room = _GROUP_BYTES
    for work in works:
        if group and (len(group) == _GROUP_WORKS or work.size_bytes > room):
            yield group
            group, room = [], _GROUP_BYTES
        group.append(work)
        room -= work.size_bytes
    if group:
        yield group


def _killer() -> SetAside:
    detail = f"{MAX_DEATHS} processes died while they handled nothing but this record"
    return SetAside("kills_process", detail, "quarantine", "consumer.quarantine.inflight.KillsProcess")
