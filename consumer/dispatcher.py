"""Submits works to preparation, suspects apart. Runs in the intake thread."""

from __future__ import annotations

from concurrent.futures import Future

from clip_index.encoder import Encoder
from consumer.backlog import Backlog
from consumer.dead_letter import SetAside
from consumer.handling import Alone, Together
from consumer.inflight import MAX_DEATHS
from consumer.lane import Lane
from consumer.metrics import Metrics
from consumer.preparation import Preparation
from consumer.risk_gate import RiskGate
from consumer.work import NothingThere, Outcome, Work


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
        self._encoder = encoder
        self._metrics = metrics

    def dispatch(self) -> None:
        """Submit what the windows allow; `OSError` when the in-flight set cannot be written."""
        for lane, works in self._backlog.submittable():
            lane.inflight.name(works[-1].next_offset)
            self._backlog.submitted(lane, [(work, self._submit(lane, work)) for work in works])

    def _submit(self, lane: Lane, work: Work) -> Future[Outcome]:
        if work.record is None:
            return _settled(NothingThere())
        if not lane.is_suspect(work):
            return self._preparation.submit(work.record, Together(self._gate))
        self._metrics.quarantined.inc()
        offset = work.record.offset
        if lane.inflight.state.kills(offset):
            return _settled(_killer())
        alone = Alone(self._gate, self._encoder, lane.inflight, offset, self._metrics)
        return self._preparation.submit(work.record, alone)


def _settled(outcome: Outcome) -> Future[Outcome]:
    settled: Future[Outcome] = Future()
    settled.set_result(outcome)
    return settled


def _killer() -> SetAside:
    detail = f"{MAX_DEATHS} processes died while they handled nothing but this record"
    return SetAside("kills_process", detail, "quarantine", "consumer.inflight.KillsProcess")
