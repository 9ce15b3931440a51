"""The encoder thread: it takes ready tasks and hands over deltas."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from clip_index.content import Embeddings
from clip_index.encoder.protocol import Encoder, Prepared
from consumer.backlog.backlog import Backlog
from consumer.dead_letters.dead_letter import DeadLetters, SetAside
from consumer.dead_letters.dead_letter_limit import DeadLetterLimit
from consumer.dead_letters.dead_letter_report import DeadLetterReport
from consumer.encoding.batcher import Batcher, BatchLimits
from consumer.encoding.canary_watch import CanaryWatch
from consumer.errors import ConsumerFault
from consumer.pipeline_state import PipelineState
from consumer.quarantine.risk_gate import RiskGate
from consumer.saved_encodings import PreparedContent, SavedEncodings
from consumer.tasks import AlreadyEncoded, Encodable, NothingThere, Outcome, Patching, Removal, Task
from consumer.telemetry.metrics import Metrics
from consumer.tracing import trace_batch
from consumer.turns import Turns
from consumer.writing.handovers import (
    Handled,
    build_handovers,
    encoded_content,
    patched_content,
    removed_content,
)
from consumer.writing.thread import Writing
from schemas.errors import UnknownSchema

_LONGEST_WAIT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class BatchEncoder:
    """The encoder as this thread uses it: timed, and never while a quarantined content is handled."""

    encoder: Encoder
    gate: RiskGate
    metrics: Metrics
    saved: SavedEncodings

    def encode(self, tasks: Sequence[Task]) -> list[Embeddings]:
        """Encode the encodable tasks in one pass. Whatever the encoder raises becomes a `ConsumerFault`."""
        began_ns = time.time_ns()
        embeddings = self._encode(tasks)
        _trace_encoding(tasks, began_ns, time.time_ns())
        return embeddings

    def _encode(self, tasks: Sequence[Task]) -> list[Embeddings]:
        encodable = [(task, task.outcome) for task in tasks if isinstance(task.outcome, Encodable)]
        contents = [
            (one.upload.digest, PreparedContent(one.prepared, one.upload.thumbnail)) for _, one in encodable
        ]
        try:
            return self.saved.encode(contents, self._encode_fresh)
        except Exception as error:
            where = f"{encodable[0][0].position} to {encodable[-1][0].position}"
            reason = f"{type(error).__name__}: {error}"
            raise ConsumerFault(f"encoding {len(encodable)} records, {where}, failed: {reason}") from error

    def _encode_fresh(self, prepared: Sequence[Prepared]) -> list[Embeddings]:
        with self.gate.together(), self.metrics.measure("encode"):
            return self.encoder.encode(prepared)


@dataclass(frozen=True, slots=True)
class DeadLetterOutlet:
    """Where bad contents are sent, how many of them are a flood, and what the log says of them."""

    letters: DeadLetters
    limit: DeadLetterLimit
    report: DeadLetterReport = field(default_factory=DeadLetterReport)


class Encoding:
    """Closes batches, encodes them and hands deltas to the writer. `run` is the thread's body.

    A batch closes when it is full, when it is old, or when no other task is under way. So a single
    upload is encoded at once.
    """

    def __init__(
        self,
        backlog: Backlog,
        encoder: BatchEncoder,
        *,
        outlet: DeadLetterOutlet,
        limits: BatchLimits,
        writing: Writing,
        metrics: Metrics,
        canaries: CanaryWatch | None = None,
    ) -> None:
        self._backlog = backlog
        self._canaries = canaries
        self._encoder = encoder
        self._outlet = outlet
        self._max_rows = limits.max_rows
        self._batcher: Batcher[Task] = Batcher(limits)
        self._writing = writing
        self._metrics = metrics
        self._is_closing = False
        self._settling: list[threading.Event] = []
        self._settling_lock = threading.Lock()
        self.turns = Turns()

    def run(self, state: PipelineState) -> None:
        """Encode until closed. Faults, unknown schemas and floods end it with an error.

        `state` is told of the error first, so that a revoke that waits in `settle` knows of it.
        """
        try:
            while not self._is_closing:
                self._turn()
        except BaseException as error:
            state.fail(error)
            raise
        finally:
            self._end()

    @property
    def drift(self) -> str | None:
        """How far the encoder has drifted from the one that the index was begun with; None if it has not."""
        return self._canaries.complaint if self._canaries is not None else None

    def close(self) -> None:
        self._is_closing = True
        self._backlog.wake()

    def settle(self, timeout_seconds: float) -> bool:
        """Wait until every task taken so far is handed over; False after the timeout."""
        settled = threading.Event()
        with self._settling_lock:
            self._settling.append(settled)
        if self._is_closing:
            return True
        self._backlog.wake()
        return settled.wait(timeout_seconds)

    def _turn(self) -> None:
        self.turns.mark()
        wait = min(self._batcher.seconds_until_due(time.monotonic()), _LONGEST_WAIT_SECONDS)
        for task in self._backlog.take(self._max_rows, max(wait, 0.0)):
            self._add(task)
        if self._settling or self._batcher.is_due(time.monotonic()) or not self._backlog.is_under_way:
            self._encode_batch()
        self._answer_settling()
        self._outlet.report.tell_if_due()
        if self._canaries is not None and self._canaries.is_due:
            self._look_at_canaries(self._canaries)

    def _look_at_canaries(self, canaries: CanaryWatch) -> None:
        """Encode the canaries, but not while a quarantined content is handled."""
        with self._encoder.gate.together():
            try:
                canaries.look()
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"
                raise ConsumerFault(f"encoding the index's canaries failed: {reason}") from error

    def _end(self) -> None:
        self._is_closing = True
        self._outlet.report.tell()
        self._answer_settling()

    def _add(self, task: Task) -> None:
        self._batcher.add(task, rows=_num_rows(_outcome(task)), now=time.monotonic())
        if self._batcher.is_full:
            self._encode_batch()

    def _encode_batch(self) -> None:
        batch = self._batcher.close()
        if not batch:
            return
        self._watch_for_flood(batch)
        embeddings = iter(self._encoder.encode(batch))
        handled = [self._handle(task, embeddings) for task in batch]
        self._metrics.batch_records.observe(len(batch))
        for handover in build_handovers(handled):
            self._writing.hand_over(handover, self.turns)

    def _watch_for_flood(self, batch: Sequence[Task]) -> None:
        """Count dead letters before any of the batch is sent, so that a flood sends none of its batch.

        What users upload is never a flood, however many of them send what cannot be indexed. A record that
        a mapping passes over says nothing about the others, so that it does not count.
        """
        for task in batch:
            if isinstance(task.outcome, SetAside) and not task.outcome.is_about_upload:
                self._outlet.limit.set_aside(task.outcome.reason, position=task.position)
            elif not isinstance(task.outcome, NothingThere):
                self._outlet.limit.passed()

    def _handle(self, task: Task, embeddings: Iterator[Embeddings]) -> Handled:
        """Make a change or a dead letter of a task; an encodable one takes the next embeddings."""
        outcome = task.outcome
        if isinstance(outcome, Encodable):
            return Handled(task, encoded_content(task, outcome.upload, next(embeddings)))
        if isinstance(outcome, AlreadyEncoded):
            return Handled(task, encoded_content(task, outcome.upload, outcome.embeddings))
        if isinstance(outcome, Removal):
            return Handled(task, removed_content(task, outcome.event))
        if isinstance(outcome, Patching):
            return Handled(task, patched_content(task, outcome.event))
        if isinstance(outcome, SetAside):
            return self._set_aside(task, outcome)
        return Handled(task)

    def _set_aside(self, task: Task, set_aside: SetAside) -> Handled:
        assert task.record is not None
        self._metrics.dead_letters.labels(set_aside.reason).inc()
        self._outlet.report.add(task.record, set_aside)
        return Handled(task, dead_letter=self._outlet.letters.send(task.record, set_aside))

    def _answer_settling(self) -> None:
        with self._settling_lock:
            if len(self._batcher) and not self._is_closing:
                return
            answered, self._settling = self._settling, []
        for settled in answered:
            settled.set()


def _trace_encoding(tasks: Sequence[Task], began_ns: int, ended_ns: int) -> None:
    """Make the span of the batch if records of it are sampled, and note the stage in their traces."""
    traces = [task.trace for task in tasks if task.trace is not None]
    if not traces:
        return
    batch = trace_batch(traces, num_records=len(tasks), began_ns=began_ns, ended_ns=ended_ns)
    for task in tasks:
        if task.trace is not None and isinstance(task.outcome, Encodable):
            task.trace.add("encode", began_ns, ended_ns, batch)


def _num_rows(outcome: Outcome) -> int:
    """How many rows the encoder has to compute for this outcome."""
    return outcome.prepared.num_rows if isinstance(outcome, Encodable) else 0


def _outcome(task: Task) -> Outcome:
    try:
        return task.settled()
    except UnknownSchema:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConsumerFault(f"preparing {task.position} failed: {reason}") from error
