"""The merges of one shard: started, polled and committed between its writer's commits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from pyroaring import BitMap

from clip_index.generations.manifest import Manifest, SegmentEntry
from clip_index.segments.segment_files import new_segment_id, remove_segment
from clip_index.storage.shard_store import ShardStore
from clip_index.writing.buffer import Buffer
from clip_index.writing.current_state import CurrentState
from clip_index.writing.erasure import ErasureBacklog, HeldSegment, backlog_of, segments_with_deleted
from clip_index.writing.merge import MergeJob, MergeResult, renumbered_rows
from clip_index.writing.merge_policy import (
    MergeBackoff,
    MergeLane,
    MergePlan,
    MergeSettings,
    merge_debt,
    niceness,
    plan_merges,
)
from clip_index.writing.merge_room import GROWTH, room_for_merge
from clip_index.writing.merge_worker import (
    MergeFailed,
    MergeLanes,
    MergeTooLarge,
    MergeWorker,
    SegmentNotMerged,
)


class ShardMerges:
    """Owned by the writer's thread. `lanes` are shared with the other shards of the process.

    `siblings` are the stores of the index's other shards, whoever writes them.
    """

    def __init__(
        self,
        current: CurrentState,
        settings: MergeSettings,
        *,
        lanes: MergeLanes,
        clock: Callable[[], float],
        siblings: tuple[ShardStore, ...] = (),
    ) -> None:
        self._current = current
        self._siblings = siblings
        self._settings = settings
        self._lanes = lanes
        self._clock = clock
        self._backoff = MergeBackoff()
        self._not_merged: dict[str, int] = {}
        self._held: tuple[Manifest | None, list[HeldSegment]] = (None, [])
        self.kill()  # a merge that a former writer of this process started: it knew other segments

    def run(self, buffer: Buffer) -> None:
        """Commit the merges that have ended and start those that are due.

        Raises what `ShardWriter.commit` raises, and `MergeFailed`. After `MergeFailed` or
        `OSError` the lane rests for a while, so that commits and garbage collection go on.
        `buffer` follows the rows that a committed merge has renumbered.
        """
        ended: set[MergeLane] = set()
        for lane, worker in self._running().items():
            with self._backing_off(lane):
                has_ended = self._commit_if_ended(worker, buffer)
            if has_ended:
                self._backoff.succeeded(lane)
                ended.add(lane)
        self._start_due(ended)

    @property
    def debt(self) -> int:
        """How many segments there are beyond what merging leaves, as far as they can be merged."""
        return merge_debt(self._current.manifest, self._settings, without=self._still_not_merged())

    @property
    def erasure_backlog(self) -> ErasureBacklog:
        """What is still to be erased, and whether that will be in time."""
        now = self._clock()
        late_seconds = self._lanes.erasure.late_seconds(self._current.store.address, now)
        return backlog_of(self._held_segments(), late_seconds, self._settings.erase_within_seconds, now)

    def source_ids(self) -> set[str]:
        """Return the segments that the running merges read."""
        return {i for job in self._jobs() for i in job.segment_ids}

    def merged_ids(self) -> set[str]:
        """Return the segments that the running merges write."""
        return {job.merged_id for job in self._jobs()}

    def generations(self) -> set[int]:
        """Return the generations that the running merges read."""
        return {job.generation for job in self._jobs()}

    def kill(self) -> None:
        """Stop the merges of this shard; what they have written is garbage."""
        for worker in self._running().values():
            worker.kill()
        self._lanes.erasure.forget(self._current.store.address)

    def _running(self) -> Mapping[MergeLane, MergeWorker]:
        return self._lanes.running(self._current.store)

    def _jobs(self) -> list[MergeJob]:
        return [worker.job for worker in self._running().values() if worker.job]

    @contextmanager
    def _backing_off(self, lane: MergeLane) -> Iterator[None]:
        """Let a lane rest after a failure, and leave out a segment that no merge can take."""
        try:
            yield
        except SegmentNotMerged as error:
            self._not_merged[error.segment_id] = self._num_dead(error.segment_id)
            raise
        except (MergeFailed, OSError):
            self._backoff.failed(lane, self._clock())
            raise

    def _start_due(self, ended: Collection[MergeLane]) -> None:
        """Start what is due, but leave the lanes in which a merge has just `ended` to the other shards.

        A shard that is far behind would otherwise take the lane again at once, each time, and the
        other shards would never merge. It has its turn again when they have had theirs.
        """
        now, manifest = self._clock(), self._current.manifest
        wanted = niceness(self.debt, self._settings)
        busy = self.source_ids() | self._still_not_merged()
        for worker in self._running().values():
            worker.hurry(wanted)
        erase_at_ms = int((now + self._seconds_ahead(busy, now)) * 1000)
        without_room: dict[MergeLane, str] = {}
        for plan in plan_merges(manifest, self._settings, busy=busy, now_ms=erase_at_ms):
            worker = self._lanes.worker(plan.lane)
            if worker.job is not None:
                worker.hurry(wanted)  # another shard's merge, because this one waits for it
            elif plan.lane not in ended and self._backoff.is_due(plan.lane, now):
                if lack := self._lack_of_room(plan):
                    without_room.setdefault(plan.lane, lack)
                    continue
                if plan.is_for_erasure and not self._may_erase(plan, now):
                    continue
                worker.set_niceness(wanted)
                with self._backing_off(plan.lane):
                    worker.start(self._new_job(plan))
        self._rest_without_room(without_room)

    def _lack_of_room(self, plan: MergePlan) -> str:
        """Return why a merge may not begin yet; "" if the disk has room for it.

        It would fail when the disk is full, and until then no commit would find room either.
        """
        growth = GROWTH[self._settings.vectors]
        room = room_for_merge(self._current.store, self._entries(plan.segment_ids), growth)
        return "" if room.is_enough else str(room)

    def _rest_without_room(self, lacks: Mapping[MergeLane, str]) -> None:
        """Let a lane rest in which no merge has room, and say so. Smaller merges have been begun before."""
        for lane, lack in lacks.items():
            if self._lanes.worker(lane).job is None:
                with self._backing_off(lane):
                    raise MergeFailed(f"{self._current.store.name}: {lack}")

    def _entries(self, segment_ids: Collection[str]) -> list[SegmentEntry]:
        return [entry for entry in self._current.manifest.segments if entry.segment_id in segment_ids]

    def _seconds_ahead(self, busy: Collection[str], now: float) -> float:
        """Tell the budget what this shard has to erase; return how much earlier it must begin."""
        waiting = [held for held in self._held_segments() if held.segment_id not in busy]
        budget = self._lanes.erasure
        budget.tell(self._current.store.address, waiting, self._settings.erase_within_seconds)
        return budget.ahead_seconds(now)

    def _may_erase(self, plan: MergePlan, now: float) -> bool:
        [held] = (held for held in self._held_segments() if held.segment_id in plan.segment_ids)
        return self._lanes.erasure.grants(self._current.store.address, held, now)

    def _held_segments(self) -> list[HeldSegment]:
        """Look at each generation once, because this is asked many times a second."""
        manifest = self._current.manifest
        if self._held[0] is not manifest:
            self._held = (manifest, segments_with_deleted(manifest))
        return self._held[1]

    def _still_not_merged(self) -> set[str]:
        """Return the segments whose merge has failed because of their own rows, none of which has died since.

        Else one of them would keep its whole tier from merging for ever.
        """
        return {i for i, num_dead in self._not_merged.items() if num_dead == self._num_dead(i)}

    def _num_dead(self, segment_id: str) -> int:
        return len(self._current.state.dead.get(segment_id, ()))

    def _new_job(self, plan: MergePlan) -> MergeJob:
        manifest = self._current.manifest
        return MergeJob(
            self._current.store,
            manifest.generation,
            plan.segment_ids,
            merged_id=new_segment_id(manifest.writer_epoch),
            started_ms=int(self._clock() * 1000),
            target_recall=self._settings.target_recall,
            siblings=self._siblings,
            vectors=self._settings.vectors,
        )

    def _commit_if_ended(self, worker: MergeWorker, buffer: Buffer) -> bool:
        job = worker.job
        result = self._poll(worker)
        if job is None or result is None:
            return False
        self._commit(job, result, buffer)
        return True

    def _poll(self, worker: MergeWorker) -> MergeResult | None:
        """Return the result if the merge has ended. Of a failed merge nothing stays on disk."""
        job = worker.job
        try:
            return worker.poll()
        except MergeFailed as error:
            if job is not None:
                remove_segment(self._current.store, job.merged_id)
                if isinstance(error, MergeTooLarge):
                    self._settings = self._settings.halved(self._entries(job.segment_ids))
            raise

    def _commit(self, job: MergeJob, result: MergeResult, buffer: Buffer) -> None:
        """Replace the sources by the merged segment; `next_offset` stays. Either/or as `install` says.

        Rows that died while the merge ran are translated to rows of the merged segment, whether
        their deaths are committed or still in the buffer.
        """
        state, sources = self._current.state, set(job.segment_ids)
        dead = {i: rows for i, rows in state.dead.items() if i not in sources}
        died_since, dead_in_buffer = _renumbered(state.dead, result), _renumbered(buffer.dead, result)
        if died_since:
            dead[job.merged_id] = died_since
        self._current.install(
            next_offset=state.manifest.next_offset,
            segments=self._replaced(sources, result.entry),
            dead=dead,
            died={job.merged_id: self._oldest_dead_ms(job)} if died_since else {},
            added=[result.entry] if result.entry else [],
        )
        buffer.follow_merge(job.merged_id, job.segment_ids, dead_in_buffer)

    def _replaced(self, sources: set[str], merged: SegmentEntry | None) -> tuple[SegmentEntry, ...]:
        segments = self._current.manifest.segments
        kept = tuple(entry for entry in segments if entry.segment_id not in sources)
        return (merged, *kept) if merged else kept

    def _oldest_dead_ms(self, job: MergeJob) -> int:
        """Return when the first row of the merged segment died.

        Rows that were dead when the merge began are not in it, so this is never before the start.
        """
        known = self._current.manifest.tombstones
        return max(job.started_ms, min(known[i].oldest_dead_ms for i in job.segment_ids if i in known))


def _renumbered(dead: Mapping[str, BitMap], result: MergeResult) -> BitMap:
    """Return the dead rows of the merge's sources as rows of the merged segment."""
    sources = [(i, row_map) for i, row_map in result.row_maps.items() if i in dead]
    return BitMap().union(*(renumbered_rows(row_map, dead[i]) for i, row_map in sources))
