"""One shard that this process owns: its writer, and the handovers until a commit covers them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from clip_index.content import Delta
from clip_index.errors import CommitUnknown
from clip_index.writing.merge_worker import MergeFailed
from consumer.notices import Committed, Notices
from consumer.tasks import AssignedPartition, CaughtUp, Handover
from consumer.telemetry.metrics import Metrics
from consumer.writing.commit_policy import CommitPace, CommitPolicy
from consumer.writing.handovers import has_patches, joined_delta, status_of_change
from consumer.writing.shard_writer import Shards, ShardWriter
from consumer.writing.traced_commits import TracedCommits
from consumer.writing.uncommitted import UncommittedHandovers
from consumer.writing.watermark import WatermarkClock
from event_log.errors import EventLogError

_log = structlog.get_logger(__name__)
_RELEASE_PAUSE_SECONDS = 0.005


class OwnedShard:
    """Belongs to the writer thread. Building one makes this process the shard's owner.

    The shard keeps every handover until a commit covers it. When only the disk can tell what
    became of a commit, the shard becomes the owner once more and adds again what turns out not
    to be committed. So nothing is read or encoded twice, and the other threads notice nothing.
    """

    def __init__(
        self,
        shards: Shards,
        assigned: AssignedPartition,
        *,
        policy: CommitPolicy,
        metrics: Metrics,
        notices: Notices,
    ) -> None:
        self._shards = shards
        self._assigned = assigned
        self._policy = policy
        self._metrics = metrics
        self._notices = notices
        self._own_epoch: int | None = None
        writer = self._become_owner()
        self.writer: ShardWriter | None = writer
        self.shard = writer.shard
        self._uncommitted = UncommittedHandovers()
        self._traced = TracedCommits()
        self._pace = CommitPace()
        self._retry_at = 0.0
        self._num_failures = 0
        self._waits_for_merges = False
        self._caught_up: CaughtUp | None = None
        self._watermark = WatermarkClock(round(policy.watermark_margin_seconds * 1000))
        self._watermark_due_at = 0.0
        self._unpublished_watermark: int | None = None
        self._covered_at_start_ms = _covered_ms(shards, writer)
        self._report(writer)

    @property
    def assignment_epoch(self) -> int:
        return self._assigned.assignment_epoch

    @property
    def waiting_bytes(self) -> int:
        """Bytes of handovers that are not added: a dead letter is not delivered yet, or the disk fails."""
        return self._uncommitted.waiting_bytes

    @property
    def buffered_bytes(self) -> int:
        """Bytes of handovers that are added and not committed, all of which are kept until the commit."""
        return self._uncommitted.added_bytes

    @property
    def is_idle(self) -> bool:
        return not len(self._uncommitted) and self.writer is not None

    @property
    def is_failing(self) -> bool:
        return self._num_failures > 0

    def accept(self, handover: Handover) -> None:
        self._uncommitted.accept(handover)

    def caught_up(self, caught_up: CaughtUp) -> None:
        self._caught_up = caught_up

    def turn(self) -> None:
        """Do what is due. Waits out a failing disk; raises `Fenced` and what is not worth retrying."""
        turn = self.begin_turn()
        for commit in turn:
            try:
                commit()
            except Exception as error:  # noqa: BLE001 - the turn decides what follows
                with suppress(StopIteration):
                    turn.throw(error)

    def begin_turn(self) -> Generator[Callable[[], object], None, None]:
        """Do what is due, as `turn` does, but yield a commit that is due instead of making it.

        Whoever drives the turn makes the commit, on any thread, and goes on with the turn when the commit
        has ended; if it raised an error, by throwing that error into the turn. Meanwhile nobody else may
        use the shard. Commits of different shards may be made side by side.
        """
        now = time.monotonic()
        if now < self._retry_at:
            return
        try:
            writer = self._recovered_writer()
            self._maintain(writer)  # first, because removing garbage may free the space that a commit needs
            self._add_delivered(writer, now)
            if self._is_commit_due(writer, now):
                self._traced.begin(writer, self._uncommitted.added)
                yield lambda: self._commit(writer)
                self._note_commit(writer)
            self._renew_watermark(writer, now)
        except (OSError, CommitUnknown) as error:
            self._wait_after(error, now)
        else:
            self._num_failures = 0
            self._metrics.outages.ended("index", part=self.shard)

    def release(self, patience_seconds: float) -> int | None:
        """Commit what was handed over, within the patience, and close; return the committed next offset.

        What cannot be committed in time stays in the log, where the next owner reads it.
        """
        deadline = time.monotonic() + patience_seconds
        while len(self._uncommitted):
            self._uncommitted.make_due()
            self.turn()
            if len(self._uncommitted) and time.monotonic() >= deadline:
                count = len(self._uncommitted)
                _log.warning("released with uncommitted handovers", shard=self.shard, count=count)
                break
            if len(self._uncommitted):
                time.sleep(_RELEASE_PAUSE_SECONDS)
        next_offset = self.writer.committed_next_offset if self.writer else None
        self.close()
        return next_offset

    def close(self) -> None:
        """Stop the writer without committing."""
        self._close_writer()
        self._metrics.outages.ended("index", part=self.shard)
        self._metrics.forget_shard(self.shard)

    def _become_owner(self) -> ShardWriter:
        """Raises `Fenced` if another process has become the owner since this one did."""
        writer = self._shards.become_owner(
            self._assigned.partition, first_offset=self._assigned.first_offset, own_epoch=self._own_epoch
        )
        self._own_epoch = writer.epoch
        return writer

    def _recovered_writer(self) -> ShardWriter:
        """The writer; a new one if the outcome of the last commit is unknown."""
        if self.writer is None:
            self.writer = self._become_owner()
            next_offset = self.writer.next_offset
            self._observe(self._uncommitted.return_uncommitted(self.shard, next_offset))
            self._report(self.writer)
            _log.info("recovered from disk", shard=self.shard, next_offset=next_offset)
        return self.writer

    def _add_delivered(self, writer: ShardWriter, now: float) -> None:
        """Add handovers as one delta, because looking up many ids costs hardly more than looking up few."""
        while delivered := self._delivered(writer, now):
            part = delivered[:1] if any(map(has_patches, delivered)) else delivered
            with self._metrics.measure("add"):
                writer.add(self._with_watermark(part))
            self._uncommitted.mark_added(len(part), now)
            if writer.read_bytes >= self._policy.max_bytes:
                return  # a patch has its whole content read into memory: commit first

    def _with_watermark(self, part: Sequence[Handover]) -> Delta:
        """Join handovers. A commit publishes their watermark with it, where a put of its own costs money."""
        timestamps_ms = [ms for handover in part for ms in handover.timestamps_ms]
        watermark_ms = self._watermark.after(timestamps_ms, now_ms=round(time.time() * 1000))
        return replace(joined_delta(part), watermark_ms=watermark_ms)

    def _delivered(self, writer: ShardWriter, now: float) -> list[Handover]:
        """If a dead letter can never be delivered, commit all records before it, then raise."""
        try:
            return self._uncommitted.delivered(now)
        except EventLogError:
            before = self._uncommitted.before_refused_letter(now)
            if before is not None and before.from_offset == writer.next_offset:
                writer.add(before)
            if writer.next_offset > writer.committed_next_offset:
                writer.commit()
            raise

    def _is_commit_due(self, writer: ShardWriter, now: float) -> bool:
        uncommitted = self._uncommitted
        return uncommitted.has_added and self._policy.is_due(
            age_seconds=uncommitted.added_age(now),
            num_bytes=uncommitted.added_bytes + writer.read_bytes,
            merge_debt=writer.merge_debt,
            is_quick=self._pace.is_quick(now),
        )

    def _commit(self, writer: ShardWriter) -> None:
        with self._metrics.measure("commit"):
            writer.commit()

    def _note_commit(self, writer: ShardWriter) -> None:
        self._pace.committed(time.monotonic())
        self._observe(self._uncommitted.take_committed())
        self._metrics.commits.labels(self.shard).inc()
        self._report(writer)

    def _observe(self, committed: Iterable[Handover]) -> None:
        """Count what a commit has made durable."""
        now, observe = time.time(), self._metrics.committed_after_event.observe
        for handover in committed:
            for timestamp_ms in handover.timestamps_ms:
                observe(max(now - timestamp_ms / 1000, 0.0))
            if handover.timestamps_ms:
                self._watermark.covered(max(handover.timestamps_ms), now_ms=round(now * 1000))
            self._count_records(handover)
            self._traced.committed(handover, self.writer)

    def _count_records(self, handover: Handover) -> None:
        records = self._metrics.records
        for status, num_records in Counter(map(status_of_change, handover.delta.changes)).items():
            records.labels(status).inc(num_records)
        records.labels("dead_letter").inc(len(handover.dead_letters))

    def _report(self, writer: ShardWriter) -> None:
        self._metrics.generation.labels(self.shard).set(writer.generation)
        self._metrics.next_offset.labels(self.shard).set(writer.committed_next_offset)
        newest_ms = self._watermark.newest_ms
        covered_ms = self._covered_at_start_ms if newest_ms is None else newest_ms
        self._notices.put(Committed(writer.partition, writer.committed_next_offset, covered_ms))

    def _maintain(self, writer: ShardWriter) -> None:
        try:
            writer.maintain()
        except MergeFailed as error:
            self._metrics.merges_failed.inc()
            _log.warning("merge failed", shard=self.shard, error=str(error))
        self._tell_debt(writer.merge_debt)
        self._metrics.tell_erasure(self.shard, writer.erasure_backlog)

    def _tell_debt(self, merge_debt: int) -> None:
        waits = self._policy.waits_for_merges(merge_debt)
        self._metrics.merge_debt.labels(self.shard).set(merge_debt)
        self._metrics.commits_waiting.labels(self.shard).set(waits)
        if waits and not self._waits_for_merges:
            _log.warning("commits wait for a merge to end", shard=self.shard, merge_debt=merge_debt)
        elif self._waits_for_merges and not waits:
            _log.info("commits go on", shard=self.shard, merge_debt=merge_debt)
        self._waits_for_merges = waits

    def _renew_watermark(self, writer: ShardWriter, now: float) -> None:
        if now < self._watermark_due_at:
            return
        seen = self._caught_up
        is_covered = seen is not None and seen.next_offset <= writer.committed_next_offset
        caught_up_at_ms = round(seen.at_seconds * 1000) if seen is not None and is_covered else None
        moved = self._watermark.advance(caught_up_at_ms=caught_up_at_ms)
        if moved is not None:
            self._unpublished_watermark = moved
        if self._unpublished_watermark is not None:  # also one that could not be written before
            writer.renew_watermark(self._unpublished_watermark)
            self._unpublished_watermark = None
            self._watermark_due_at = now + self._policy.watermark_every_seconds

    def _wait_after(self, error: OSError | CommitUnknown, now: float) -> None:
        if isinstance(error, CommitUnknown):
            self._close_writer()
        self._num_failures += 1
        self._retry_at = now + self._policy.backoff.seconds(self._num_failures)
        self._metrics.outages.failed("index", error, part=self.shard)

    def _close_writer(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def _covered_ms(shards: Shards, writer: ShardWriter) -> int:
    """Up to when the shard covers its log at its takeover: its watermark, or now without a valid one."""
    watermark = shards.read_watermark(writer.partition)
    if watermark is not None and watermark.next_offset <= writer.committed_next_offset:
        return watermark.watermark_ms
    return round(time.time() * 1000)
