"""The one writer of a shard: folds deltas in, commits generations, merges, tidies up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from uuid import uuid4

from pyroaring import BitMap

from clip_index.content import Delta
from clip_index.errors import CommitUnknown, DeltaMismatch, Fenced
from clip_index.generations.garbage import GarbageCollector
from clip_index.generations.history import GenerationTaken, link_manifest, read_newest
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.manifest import SEGMENTS, TOMBSTONES, Manifest, SegmentEntry, TombstonesEntry
from clip_index.generations.takeover import take_over_manifest
from clip_index.generations.tombstones import DeadRows, union_tombstones, write_tombstones
from clip_index.generations.watermark import Watermark, write_watermark
from clip_index.segments.segment_files import new_segment_id, remove_segment, rows_from_buffer, write_segment
from clip_index.storage.shard_store import ShardStore
from clip_index.vectors.flat_vectors import write_flat
from clip_index.vectors.vector_file import VectorWriter
from clip_index.writing.buffer import Buffer
from clip_index.writing.merge import MergeJob, MergeResult, moved_rows
from clip_index.writing.merge_policy import (
    MergeBackoff,
    MergeLane,
    MergePlan,
    MergeSettings,
    merge_debt,
    plan_merges,
)
from clip_index.writing.merge_worker import MergeFailed, MergeLanes, MergeWorker
from clip_index.writing.shard_state import KnownId, ShardState, next_state, open_state

_NOTHING_KNOWN = KnownId()


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How long old generations stay for readers, how often garbage is looked for, when segments merge.

    A commit waits for `write_sealed`, so it is a flat one; inverted lists are built by merges.
    """

    retain_for_seconds: float = 600.0
    collect_every_seconds: float = 10.0
    merge: MergeSettings = field(default_factory=MergeSettings)
    write_sealed: VectorWriter = write_flat


class ShardWriter:
    """Owned by one thread. After `Fenced` or `CommitUnknown` the writer is of no further use."""

    def __init__(
        self,
        index: IndexDirectory,
        partition: int,
        *,
        state: ShardState,
        settings: WriterSettings,
        lanes: MergeLanes | None,
        clock: Callable[[], float],
    ) -> None:
        self.partition = partition
        self.shard = index.shard_name(partition)
        self.store: ShardStore = index.shard_store(partition)
        self._state = state
        self._settings = settings
        self._lanes = lanes or MergeLanes()
        for worker in self._lanes.running(self.store).values():
            worker.kill()  # a merge of a former writer, which knew other segments
        self._owns_lanes = lanes is None
        self._merge_backoff = MergeBackoff()
        self._clock = clock
        self._buffer = Buffer()
        self._next_offset = state.manifest.next_offset
        self._garbage = GarbageCollector(self.store, settings.retain_for_seconds)
        self._collected_at = clock()

    @classmethod
    def take_over(
        cls,
        index: IndexDirectory,
        partition: int,
        *,
        writer_id: str,
        first_offset: int,
        own_epoch: int | None = None,
        settings: WriterSettings | None = None,
        lanes: MergeLanes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> ShardWriter:
        """Become the shard's owner: commit a takeover generation with a greater writer epoch.

        `first_offset` (the log's start) is where a new shard begins; an existing one goes
        on at its manifest's `next_offset`. `own_epoch` is that of the owner's former writer,
        after `CommitUnknown`: raises `Fenced` if another owner has taken over since. `lanes`
        are the process's merge workers; without them the writer starts its own. Raises
        `DamagedFile` naming a file that is not what the manifest says.
        """
        store = index.shard_store(partition)
        store.prepare([SEGMENTS, TOMBSTONES])
        manifest = take_over_manifest(
            store, writer_id=writer_id, first_offset=first_offset, own_epoch=own_epoch
        )
        state = open_state(store, manifest)
        settings = settings or WriterSettings()
        return cls(index, partition, state=state, settings=settings, lanes=lanes, clock=clock)

    @property
    def manifest(self) -> Manifest:
        """The generation that this writer has committed last."""
        return self._state.manifest

    @property
    def epoch(self) -> int:
        return self.manifest.writer_epoch

    @property
    def generation(self) -> int:
        return self.manifest.generation

    @property
    def first_offset(self) -> int:
        return self.manifest.first_offset

    @property
    def next_offset(self) -> int:
        """Covered, the buffer included."""
        return self._next_offset

    @property
    def committed_next_offset(self) -> int:
        return self.manifest.next_offset

    @property
    def has_changes(self) -> bool:
        return self._next_offset != self.committed_next_offset

    @property
    def merge_debt(self) -> int:
        """Segments beyond what merging holds at rest; while it grows, commit less often."""
        return merge_debt(self.manifest, self._settings.merge)

    def add(self, delta: Delta) -> None:
        """Fold a delta into the buffer; `DeltaMismatch` if it does not start where the writer is."""
        if delta.from_offset != self._next_offset:
            raise DeltaMismatch(self.shard, self._next_offset, delta.from_offset)
        unbuffered = {c.content_id for c in delta.changes if c.content_id not in self._buffer}
        known = self._state.find(list(unbuffered))
        for change in delta.changes:
            self._buffer.apply(change, known.get(change.content_id, _NOTHING_KNOWN))
        self._next_offset = delta.next_offset

    def commit(self) -> int:
        """Make everything that was added visible and durable in one step; return the next offset.

        Either a new generation that covers `next_offset` is current when this returns; or
        it raises and the shard shows what it showed before (`OSError`: the buffer is kept,
        commit again later; `Fenced`: another writer owns the shard), or only the disk can
        tell (`CommitUnknown`: take over again).

        Step 1 seals the buffer into a segment, files and directory fsynced. Step 2 writes
        the tombstones of the rows that it killed. Step 3 opens what is new, so that nothing
        unreadable is ever committed. Step 4 links the manifest, the one atomic step; behind
        it nothing can fail.
        """
        if not self.has_changes:
            return self.committed_next_offset
        sealed = self._seal()  # Step 1
        try:
            state = self._state_with(sealed)  # Steps 2 and 3
        except OSError:
            self._discard(sealed)
            raise
        self._link(state.manifest, sealed)  # Step 4
        self._state = state
        self._buffer = Buffer()
        return self.committed_next_offset

    def renew_watermark(self, watermark_ms: int) -> None:
        """Publish that every record at or before this time (ms since 1970) is committed."""
        write_watermark(self.store, Watermark(watermark_ms, self.committed_next_offset, self.epoch))

    def tend(self) -> None:
        """Commit merges that have ended, start those that are due, collect garbage now and then.

        Raises what `commit` raises, `Fenced` even while there is nothing to commit; a failed
        merge raises `MergeFailed` and is tried again after a while.
        """
        for lane, worker in self._lanes.running(self.store).items():
            self._end_merge(lane, worker)
        self._start_merges()
        now = self._clock()
        if not 0 <= now - self._collected_at < self._settings.collect_every_seconds:  # or it was set back
            self._collected_at = now
            with self._owning():
                self._garbage.collect(newest=self.generation, in_flight=self._in_flight(), now=now)

    def close(self) -> None:
        """Stop a running merge. Does not commit: what is buffered is still in the log."""
        for worker in self._lanes.running(self.store).values():
            worker.kill()
        if self._owns_lanes:
            self._lanes.close()

    def _seal(self) -> list[SegmentEntry]:
        contents, deletes = self._buffer.contents(), self._buffer.deletes()
        if not contents and not deletes:
            return []
        rows = rows_from_buffer(contents, deletes)
        segment_id = new_segment_id(self.epoch)
        return [write_segment(self.store, segment_id, rows, self._settings.write_sealed)]

    def _state_with(self, sealed: list[SegmentEntry]) -> ShardState:
        dead = union_tombstones(self._state.dead, self._buffer.dead)
        kept = [entry for entry in self.manifest.segments if not self._is_spent(entry, dead)]
        dead = {entry.segment_id: dead[entry.segment_id] for entry in kept if entry.segment_id in dead}
        manifest = self._next_manifest(
            next_offset=self._next_offset,
            segments=(*kept, *sealed),
            tombstones=self._write_tombstones(self._buffer.dead, dead),
        )
        return next_state(self.store, self._state, manifest, dead)

    def _is_spent(self, entry: SegmentEntry, dead: Mapping[str, BitMap]) -> bool:
        """Whether nobody needs the segment any more: each row dead, no delete to remember.

        What a dead row's id must keep (its floor) is in the newer entry that killed it. A source
        of a running merge stays: its tombstones say which merged rows have died since.
        """
        is_dead = len(dead.get(entry.segment_id, ())) == entry.num_contents
        return is_dead and entry.num_deletes == 0 and entry.segment_id not in self._merging()

    def _discard(self, added: list[SegmentEntry]) -> None:
        """A full disk must not fill up further with every attempt."""
        for entry in added:
            remove_segment(self.store, entry.segment_id)

    def _write_tombstones(
        self, changed: Mapping[str, BitMap], dead: Mapping[str, BitMap]
    ) -> dict[str, TombstonesEntry]:
        """Write the bitmaps of the segments that changed; the others in `dead` keep their files."""
        entries = {i: entry for i, entry in self.manifest.tombstones.items() if i in dead}
        if not changed.keys() & dead.keys():
            return entries
        now_ms, died = int(self._clock() * 1000), {}
        for segment_id in changed.keys() & dead.keys():
            known = entries.get(segment_id)
            died[segment_id] = DeadRows(dead[segment_id], known.oldest_dead_ms if known else now_ms)
        return {**entries, **write_tombstones(self.store, died, generation=self.generation + 1)}

    def _next_manifest(
        self,
        *,
        next_offset: int,
        segments: tuple[SegmentEntry, ...],
        tombstones: Mapping[str, TombstonesEntry],
    ) -> Manifest:
        return replace(
            self.manifest,
            generation=self.generation + 1,
            nonce=uuid4().hex,
            next_offset=next_offset,
            segments=segments,
            tombstones=tombstones,
        )

    def _link(self, manifest: Manifest, added: list[SegmentEntry]) -> None:
        with self._owning():
            try:
                link_manifest(self.store, manifest)
            except OSError:  # the one error that says that nothing was linked, so nobody names them
                self._discard(added)
                raise
        self._garbage.learn(manifest)

    @contextmanager
    def _owning(self) -> Iterator[None]:
        """Tell what it means that another writer made a generation current."""
        try:
            yield
        except GenerationTaken:
            newest = read_newest(self.store)
            if newest is not None and newest.writer_epoch > self.epoch:
                raise Fenced(self.shard, self.epoch, newest.writer_epoch) from None
            raise CommitUnknown(f"{self.shard}: generation {self.generation} is not the newest") from None

    def _end_merge(self, lane: MergeLane, worker: MergeWorker) -> None:
        job = worker.job
        if job is None:
            return
        with self._backing_off(lane):
            result = self._poll(worker, job)
            if result is None:
                return
            self._commit_merge(job, result)
        self._merge_backoff.succeeded(lane)

    def _poll(self, worker: MergeWorker, job: MergeJob) -> MergeResult | None:
        """As the worker's own; what a failed merge leaves, if it was killed, goes at once."""
        try:
            return worker.poll()
        except MergeFailed:
            remove_segment(self.store, job.merged_id)
            raise

    def _start_merges(self) -> None:
        busy, now = self._merging(), self._clock()
        for plan in plan_merges(self.manifest, self._settings.merge, busy=busy, now_ms=int(now * 1000)):
            worker = self._lanes.worker(plan.lane)
            if worker.job is None and self._merge_backoff.is_due(plan.lane, now):
                with self._backing_off(plan.lane):
                    worker.start(self._merge_job(plan))

    @contextmanager
    def _backing_off(self, lane: MergeLane) -> Iterator[None]:
        """Let a merge that fails rest for a while: commits and garbage do not wait for it."""
        try:
            yield
        except (MergeFailed, OSError):
            self._merge_backoff.failed(lane, self._clock())
            raise

    def _merge_job(self, plan: MergePlan) -> MergeJob:
        merged_id, now_ms = new_segment_id(self.epoch), int(self._clock() * 1000)
        return MergeJob(self.store, self.generation, plan.segment_ids, merged_id, now_ms)

    def _merging(self) -> set[str]:
        """The sources of the merges that run."""
        return {
            i
            for worker in self._lanes.running(self.store).values()
            if worker.job
            for i in worker.job.segment_ids
        }

    def _in_flight(self) -> list[str]:
        return [worker.job.merged_id for worker in self._lanes.running(self.store).values() if worker.job]

    def _commit_merge(self, job: MergeJob, result: MergeResult) -> None:
        """Put the merged segment in its sources' place; `next_offset` stays.

        Either/or as in `commit`. Rows that died while the merge ran, committed or
        buffered, are translated to rows of the merged segment.
        """
        merged = [result.entry] if result.entry else []
        try:
            state = self._merged_state(job, result)
        except OSError:
            self._discard(merged)
            raise
        moved_in_buffer = self._moved(self._buffer.dead, result)
        self._link(state.manifest, merged)
        self._buffer.follow_merge(job.merged_id, job.segment_ids, moved_in_buffer)
        self._state = state

    def _merged_state(self, job: MergeJob, result: MergeResult) -> ShardState:
        sources = set(job.segment_ids)
        moved = self._moved(self._state.dead, result)
        dead = {i: rows for i, rows in self._state.dead.items() if i not in sources}
        if moved:
            dead[job.merged_id] = moved
        kept = {i: e for i, e in self.manifest.tombstones.items() if i not in sources}
        manifest = self._next_manifest(
            next_offset=self.committed_next_offset,
            segments=self._replace_segments(sources, result.entry),
            tombstones={**kept, **self._merged_tombstones(job, moved)},
        )
        return next_state(self.store, self._state, manifest, dead)

    def _replace_segments(self, sources: set[str], merged: SegmentEntry | None) -> tuple[SegmentEntry, ...]:
        kept = tuple(entry for entry in self.manifest.segments if entry.segment_id not in sources)
        return (merged, *kept) if merged else kept

    @staticmethod
    def _moved(dead: Mapping[str, BitMap], result: MergeResult) -> BitMap:
        sources = [(i, row_map) for i, row_map in result.row_maps.items() if i in dead]
        return BitMap().union(*(moved_rows(row_map, dead[i]) for i, row_map in sources))

    def _merged_tombstones(self, job: MergeJob, moved: BitMap) -> dict[str, TombstonesEntry]:
        """Rows that were dead before the merge began are gone: the oldest died since."""
        if not moved:
            return {}
        known = self.manifest.tombstones
        oldest_ms = max(job.started_ms, min(known[i].oldest_dead_ms for i in job.segment_ids if i in known))
        died = {job.merged_id: DeadRows(moved, oldest_ms)}
        return write_tombstones(self.store, died, generation=self.generation + 1)
