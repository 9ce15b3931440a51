"""The intake thread: the only one that uses the record source. It never encodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from consumer.backlog.backlog import Backlog
from consumer.backoff import Backoff
from consumer.errors import FencedWhileAssigned, StartRefused, TakeoverAbandoned
from consumer.intake.assignment import Assignment
from consumer.intake.dispatcher import Dispatcher
from consumer.intake.progress import Progress
from consumer.intake.start_check import ACCEPT_DATA_LOSS, INDEX_ID
from consumer.intake.topic_watch import TopicWatch
from consumer.intake.waiting_partitions import WaitingPartitions
from consumer.notices import Committed, Notices, ShardFenced
from consumer.pipeline_state import PipelineState
from consumer.telemetry.metrics import Metrics
from consumer.turns import Turns
from event_log.errors import EventLogError, OffsetOutOfRange, RecordUnreadable, TransientLogError
from event_log.records import EndOfPartition, Record
from event_log.source import RecordSource

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """`busy_wait_seconds` bounds a poll while there are tasks in the backlog, `idle_wait_seconds` otherwise.

    `fenced_patience_seconds` is how long a fenced partition may stay assigned to this process.
    """

    max_poll_records: int = 500
    busy_wait_seconds: float = 0.01
    idle_wait_seconds: float = 0.1
    fenced_patience_seconds: float = 30.0
    backoff: Backoff = field(default_factory=lambda: Backoff(longest_seconds=1.0))


@dataclass(frozen=True, slots=True)
class IntakeParts:
    """What intake drives: rebalances through `assignment`, and the others at each turn, in this order."""

    assignment: Assignment
    backlog: Backlog
    dispatcher: Dispatcher
    progress: Progress
    topic_watch: TopicWatch


class Intake:
    """Reads records, submits tasks and answers the group. `run` is the thread's body."""

    def __init__(
        self,
        source: RecordSource,
        parts: IntakeParts,
        *,
        notices: Notices,
        settings: IntakeSettings,
        metrics: Metrics,
    ) -> None:
        self._source = source
        self._assignment = parts.assignment
        self._backlog = parts.backlog
        self._dispatcher = parts.dispatcher
        self._progress = parts.progress
        self._topic_watch = parts.topic_watch
        self._notices = notices
        self._metrics = metrics
        self._settings = settings
        self._waiting = WaitingPartitions(metrics)
        self._fenced_until: dict[int, float] = {}
        self._num_failures = 0
        self._unreadable: dict[int, RecordUnreadable] = {}
        self.turns = Turns()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Why partitions wait, one sentence for each that does. Any thread may ask."""
        return self._waiting.reasons

    def run(self, state: PipelineState) -> None:
        """Read until told to stop, then leave the group; leaving commits and closes the shards.

        `state` is told of an error first, because leaving after a fault must keep the in-flight set.
        """
        try:
            self._source.subscribe(self._topic_watch.topic, self._assignment)
            while not state.is_stopping():
                self._turn()
        except TakeoverAbandoned as error:
            _log.warning("takeover abandoned", error=str(error))
        except BaseException as error:
            state.fail(error)
            raise
        finally:
            self._source.close()

    def _turn(self) -> None:
        self.turns.mark()
        self._read_notices()
        self._check_fenced_partitions()
        self._waiting.observe(self._backlog.waiting, now=time.monotonic())
        is_well = self._try("log", "poll", self._receive)
        self._read_notices()  # again, because polling waits: the in-flight file says what is committed
        is_well &= self._try("inflight", "", self._dispatcher.dispatch)
        self._progress.follow(self._source)
        if self._topic_watch.is_due:
            is_well &= self._try("log", "topic", self._topic_watch.check)
        self._pause_after(is_well)

    def _try(self, place: str, part: str, step: Callable[[], None]) -> bool:
        """Do a step, whatever became of the others. Return whether it succeeded; if not, it is due again."""
        try:
            step()
        except (TransientLogError, OSError) as error:
            self._metrics.outages.failed(place, error, part=part)
            return False
        self._metrics.outages.ended(place, part=part)
        return True

    def _receive(self) -> None:
        try:
            self._backlog.receive(self._poll())
        except RecordUnreadable as error:
            self._unreadable[error.partition] = error
            self._metrics.outages.failed("log", error, part=f"partition {error.partition}")
        self._end_passed_holds()
        self._control_flow()

    def _end_passed_holds(self) -> None:
        """A record that could not be read holds its partition until it is passed or the partition is gone."""
        for partition, error in list(self._unreadable.items()):
            position = self._backlog.position(partition)
            if position is None or position > error.offset:
                del self._unreadable[partition]
                self._metrics.outages.ended("log", part=f"partition {partition}")

    def _read_notices(self) -> None:
        positions: dict[int, int] = {}
        for notice in self._notices.take_all():
            if isinstance(notice, Committed):
                positions[notice.partition] = notice.next_offset
                self._progress.committed(notice)
                self._assignment.note_committed(notice.partition, notice.next_offset)
            else:
                self._fence_off(notice)
        if positions:
            self._publish(positions)

    def _publish(self, positions: dict[int, int]) -> None:
        """Commit offsets to the group. A failure is only logged, because the manifest is what counts."""
        try:
            self._source.commit({p: n for p, n in positions.items() if p in self._assignment.partitions})
        except EventLogError as error:
            self._metrics.transient_errors.labels("offset_commit").inc()
            _log.warning("offset commit failed", error=str(error))

    def _poll(self) -> Sequence[Record | EndOfPartition]:
        is_busy = bool(self._backlog.size_bytes)
        wait = self._settings.busy_wait_seconds if is_busy else self._settings.idle_wait_seconds
        try:
            return self._source.poll(self._settings.max_poll_records, wait)
        except OffsetOutOfRange as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OffsetOutOfRange) -> StartRefused:
        position = self._backlog.position(error.partition)
        return StartRefused(
            f"{error.topic}-{error.partition}: at {position}, but {self._held(error)}; "
            f"if retention removed records, set {ACCEPT_DATA_LOSS}=true to go on without them; "
            f"if the topic was recreated, build an index of the new log under another {INDEX_ID}"
        )

    def _held(self, error: OffsetOutOfRange) -> str:
        """What the log holds. The question may fail, but the error is raised only once and must be told."""
        try:
            log = self._source.log_range(error.partition)
        except TransientLogError:
            return f"the log holds no such offset ({error})"
        return f"the log holds [{log.first_offset}, {log.next_offset})"

    def _control_flow(self) -> None:
        change = self._backlog.flow_change()
        if change.pause:
            self._source.pause(change.pause)
            self._metrics.pauses.inc(len(change.pause))
        if change.resume:
            self._source.resume(change.resume)
        self._metrics.buffered_bytes.set(self._backlog.size_bytes)

    def _fence_off(self, fenced: ShardFenced) -> None:
        """Stop reading a partition whose shard has another owner, and wait for the group to revoke it."""
        if self._backlog.epoch(fenced.partition) != fenced.assignment_epoch:
            return
        self._backlog.close(fenced.partition)
        self._source.pause([fenced.partition])
        self._fenced_until[fenced.partition] = time.monotonic() + self._settings.fenced_patience_seconds

    def _check_fenced_partitions(self) -> None:
        """Raises `FencedWhileAssigned` when the group does not revoke a fenced partition in time."""
        for partition, deadline in list(self._fenced_until.items()):
            is_given_away = partition not in self._assignment.partitions
            is_ours_again = self._backlog.epoch(partition) is not None
            if is_given_away or is_ours_again:
                del self._fenced_until[partition]
            elif time.monotonic() >= deadline:
                raise FencedWhileAssigned(partition)

    def _pause_after(self, is_well: bool) -> None:
        self._num_failures = 0 if is_well else self._num_failures + 1
        if not is_well:
            time.sleep(self._settings.backoff.seconds(self._num_failures))
