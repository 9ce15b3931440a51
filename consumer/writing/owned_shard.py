"""One shard of this process: its writer, what waits to be added, what waits to be committed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from clip_index.content import EncodedContent
from clip_index.errors import CommitUnknown
from clip_index.generations.watermark import read_watermark
from clip_index.writing.merge_worker import MergeFailed
from clip_index.writing.shard_writer import ShardWriter
from consumer.backoff import Backoff
from consumer.errors import ConsumerFault
from consumer.telemetry.metrics import Metrics
from consumer.work import CaughtUp, Committed, Handover
from consumer.writing.handovers import delivered_handovers, joined_delta
from consumer.writing.watermark import WatermarkClock

_log = structlog.get_logger(__name__)
_LONGEST_INTERVAL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CommitPolicy:
    """When a shard commits: `interval_seconds` after the first uncommitted change, or at `max_bytes`.

    While merging falls behind, the interval is stretched by the number of segments that
    are too many, up to five seconds.
    """

    interval_seconds: float = 0.2
    max_bytes: int = 32 * 1024 * 1024
    watermark_every_seconds: float = 1.0
    watermark_margin_seconds: float = 1.0
    backoff: Backoff = field(default_factory=Backoff)

    def interval(self, merge_debt: int) -> float:
        stretched = self.interval_seconds * (1 + max(merge_debt, 0))
        return max(self.interval_seconds, min(stretched, _LONGEST_INTERVAL_SECONDS))


class OwnedShard:
    """Owned by the writer thread.

    It keeps every handover until the commit that covers it. So when only the disk can
    tell what became of a commit, the shard is taken over again and the handovers that
    turn out not to be committed are added once more: nothing is read or encoded twice,
    and the record source learns nothing of it.
    """

    def __init__(
        self,
        take_over: Callable[[int | None], ShardWriter],
        assignment_epoch: int,
        *,
        policy: CommitPolicy,
        metrics: Metrics,
        committed: Callable[[Committed], None],
    ) -> None:
        """`take_over` is told the writer epoch that this shard has had, None at first."""
        self._take_over = take_over
        self._policy = policy
        self._metrics = metrics
        self._committed = committed
        self.assignment_epoch = assignment_epoch
        self.writer: ShardWriter | None = take_over(None)
        self._epoch = self.writer.epoch
        self.shard = self.writer.shard
        self._waiting: deque[Handover] = deque()
        self._waiting_bytes = 0
        self._added: deque[Handover] = deque()
        self._added_bytes = 0
        self._changed_at: float | None = None
        self._retry_at = 0.0
        self._num_failures = 0
        self._caught_up: CaughtUp | None = None
        self._watermark = WatermarkClock(round(policy.watermark_margin_seconds * 1000))
        self._watermark_due_at = 0.0
        self._covered_at_start_ms = _covered_ms(self.writer)
        self._report(self.writer)

    @property
    def waiting_bytes(self) -> int:
        """Handovers whose dead letters are not delivered yet, or whose disk fails."""
        return self._waiting_bytes

    @property
    def buffered_bytes(self) -> int:
        """Handovers that are added and not committed: kept whole, however little is left of them to write."""
        return self._added_bytes

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._added and self.writer is not None

    @property
    def is_failing(self) -> bool:
        return self._num_failures > 0

    def accept(self, handover: Handover) -> None:
        self._waiting.append(handover)
        self._waiting_bytes += handover.size_bytes

    def caught_up(self, caught_up: CaughtUp) -> None:
        self._caught_up = caught_up

    def turn(self) -> None:
        """Do what is due. Disk trouble is waited out; raises `Fenced` and what is not worth retrying."""
        now = time.monotonic()
        if now < self._retry_at:
            return
        try:
            writer = self._recovered_writer()
            self._tend(writer)  # first: on a full disk, collecting garbage is what lets a commit through
            self._add_delivered(writer, now)
            if self._is_commit_due(writer, now):
                self._commit(writer)
            self._renew_watermark(writer, now)
        except (OSError, CommitUnknown) as error:
            self._wait_after(error, now)
        else:
            self._num_failures = 0

    def release(self, patience_seconds: float) -> int | None:
        """Commit what was handed over, within the patience, and close; return the committed next offset.

        What cannot be committed in time is left in the log for the next owner.
        """
        deadline = time.monotonic() + patience_seconds
        while self._num_kept:
            self._changed_at = float("-inf")  # due at once
            self.turn()
            if self._num_kept and time.monotonic() >= deadline:
                _log.warning("released with uncommitted handovers", shard=self.shard, count=self._num_kept)
                break
            if self._num_kept:
                time.sleep(0.005)
        next_offset = self.writer.committed_next_offset if self.writer else None
        self.close()
        return next_offset

    def close(self) -> None:
        """Stop the writer without committing."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None
        self._metrics.forget_shard(self.shard)

    @property
    def _num_kept(self) -> int:
        return len(self._waiting) + len(self._added)

    def _recovered_writer(self) -> ShardWriter:
        """The writer, taken back if a commit's outcome is unknown; `Fenced` if it is somebody else's."""
        if self.writer is None:
            self.writer = self._take_over(self._epoch)
            self._epoch = self.writer.epoch
            self._return_uncommitted(self.writer.next_offset)
            self._report(self.writer)
            _log.info("recovered from disk", shard=self.shard, next_offset=self.writer.next_offset)
        return self.writer

    def _return_uncommitted(self, next_offset: int) -> None:
        kept = [one for one in (*self._added, *self._waiting) if one.delta.next_offset > next_offset]
        if kept and kept[0].delta.from_offset != next_offset:
            raise ConsumerFault(f"{self.shard}: on disk at {next_offset}, which no handover begins with")
        for handover in self._added:
            if handover.delta.next_offset <= next_offset:
                self._observe(handover)
        self._added.clear()
        self._added_bytes = 0
        self._waiting = deque(kept)
        self._waiting_bytes = sum(one.size_bytes for one in kept)
        self._changed_at = None

    def _add_delivered(self, writer: ShardWriter, now: float) -> None:
        """Add handovers as one delta: looking ids up costs the same for many as for few."""
        while delivered := delivered_handovers(self._waiting, now):
            with self._metrics.measure("add"):
                writer.add(joined_delta(delivered))
            self._added.extend(self._waiting.popleft() for _ in delivered)
            added_bytes = sum(one.size_bytes for one in delivered)
            self._waiting_bytes -= added_bytes
            self._added_bytes += added_bytes
            if self._changed_at is None:
                self._changed_at = now

    def _is_commit_due(self, writer: ShardWriter, now: float) -> bool:
        if not self._added or self._changed_at is None:
            return False
        is_old = now - self._changed_at >= self._policy.interval(writer.merge_debt)
        return is_old or self._added_bytes >= self._policy.max_bytes

    def _commit(self, writer: ShardWriter) -> None:
        with self._metrics.measure("commit"):
            writer.commit()
        while self._added:
            self._observe(self._added.popleft())
        self._added_bytes = 0
        self._changed_at = None
        self._metrics.commits.labels(self.shard).inc()
        self._report(writer)

    def _observe(self, handover: Handover) -> None:
        """Count what a commit has made durable."""
        now, observe = time.time(), self._metrics.committed_after_event.observe
        for timestamp_ms in handover.timestamps_ms:
            observe(max(now - timestamp_ms / 1000, 0.0))
        if handover.timestamps_ms:
            self._watermark.covered(max(handover.timestamps_ms), now_ms=round(now * 1000))
        num_indexed = sum(isinstance(change, EncodedContent) for change in handover.delta.changes)
        records = self._metrics.records
        records.labels("indexed").inc(num_indexed)
        records.labels("removed").inc(len(handover.delta.changes) - num_indexed)
        records.labels("dead_letter").inc(len(handover.dead_letters))

    def _report(self, writer: ShardWriter) -> None:
        self._metrics.generation.labels(self.shard).set(writer.generation)
        self._metrics.next_offset.labels(self.shard).set(writer.committed_next_offset)
        newest_ms = self._watermark.newest_ms
        covered_ms = self._covered_at_start_ms if newest_ms is None else newest_ms
        self._committed(Committed(writer.partition, writer.committed_next_offset, covered_ms))

    def _tend(self, writer: ShardWriter) -> None:
        try:
            writer.maintain()
        except MergeFailed as error:
            self._metrics.merges_failed.inc()
            _log.warning("merge failed", shard=self.shard, error=str(error))
        self._metrics.merge_debt.labels(self.shard).set(writer.merge_debt)

    def _renew_watermark(self, writer: ShardWriter, now: float) -> None:
        if now < self._watermark_due_at:
            return
        seen = self._caught_up
        is_covered = seen is not None and seen.next_offset <= writer.committed_next_offset
        caught_up_at_ms = round(seen.at_seconds * 1000) if seen is not None and is_covered else None
        moved = self._watermark.advance(caught_up_at_ms=caught_up_at_ms)
        if moved is not None:
            writer.renew_watermark(moved)
            self._watermark_due_at = now + self._policy.watermark_every_seconds

    def _wait_after(self, error: OSError | CommitUnknown, now: float) -> None:
        if isinstance(error, CommitUnknown) and self.writer is not None:
            self.writer.close()
            self.writer = None
        self._num_failures += 1
        self._retry_at = now + self._policy.backoff.seconds(self._num_failures)
        self._metrics.transient_errors.labels("index").inc()
        _log.warning("index is not writable, waiting", shard=self.shard, error=str(error))


def _covered_ms(writer: ShardWriter) -> int:
    """Up to when the shard covers its log as it is taken over; now, where nothing on disk tells."""
    watermark = read_watermark(writer.store)
    if watermark is not None and watermark.next_offset <= writer.committed_next_offset:
        return watermark.watermark_ms
    return round(time.time() * 1000)
