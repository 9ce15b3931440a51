"""The one writer of a shard: folds deltas in, commits generations, merges, collects garbage."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pyroaring import BitMap

from clip_index.content import Change, Delta, Derived, PatchedContent
from clip_index.errors import DeltaMismatch
from clip_index.generations.manifest import CENTROIDS, SEGMENTS, TOMBSTONES, Manifest, SegmentEntry
from clip_index.generations.takeover import Claim, take_over_manifest
from clip_index.generations.tombstones import MAX_BYTES_IN_MANIFEST, union_tombstones
from clip_index.generations.traces import TracedRecord, write_traces
from clip_index.generations.watermark import Watermark, write_watermark
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.segments.segment_files import new_segment_id, rows_from_buffer, write_segment
from clip_index.storage.shard_store import ShardStore
from clip_index.vectors.flat_vectors import write_flat
from clip_index.vectors.vector_file import VectorWriter
from clip_index.writing.buffer import Buffer
from clip_index.writing.commit_lists import CommitLists
from clip_index.writing.current_state import CurrentState
from clip_index.writing.erasure import ErasureBacklog, ErasureBudget
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.merge_worker import MergeLanes
from clip_index.writing.shard_merges import ShardMerges
from clip_index.writing.shard_state import KnownId, ShardState, open_for_look_ups

_NOTHING_KNOWN = KnownId()


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How long old generations stay for readers, how often garbage is collected, when segments merge.

    `write_sealed` writes the vectors of a commit, which waits for it. So it writes a flat file;
    merges build inverted lists. A manifest holds up to `max_bitmap_bytes` of dead rows; of more, the
    largest bitmaps go to files.
    """

    retain_for_seconds: float = 600.0
    collect_every_seconds: float = 10.0
    merge: MergeSettings = field(default_factory=MergeSettings)
    write_sealed: VectorWriter = write_flat
    max_bitmap_bytes: int = MAX_BYTES_IN_MANIFEST


class ShardWriter:
    """Owned by one thread. After `Fenced` or `CommitUnknown` the writer can only be closed."""

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
        self._settings = settings
        self._clock = clock
        self._current = CurrentState(
            self.store,
            state,
            retain_for_seconds=settings.retain_for_seconds,
            max_bitmap_bytes=settings.max_bitmap_bytes,
        )
        self._lanes = lanes or MergeLanes(erasure=ErasureBudget(settings.merge.erase_bytes_a_day))
        self._owns_lanes = lanes is None
        self._merges = ShardMerges(
            self._current,
            settings.merge,
            lanes=self._lanes,
            clock=clock,
            siblings=tuple(index.shard_store(p) for p in index.partitions if p != partition),
        )
        self._lists = CommitLists(self.store, state.sets)
        self._buffer = Buffer()
        self._next_offset = state.manifest.next_offset
        self._watermark_ms = state.manifest.watermark_ms or 0
        self._collected_at = clock()

    @classmethod
    def take_over(
        cls,
        index: IndexDirectory,
        partition: int,
        claim: Claim,
        *,
        settings: WriterSettings | None = None,
        lanes: MergeLanes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> ShardWriter:
        """Become the shard's owner: commit a takeover generation with a greater writer epoch.

        A new shard begins at the claim's `first_offset`, the log's start; an existing one continues at
        its manifest's `next_offset`. After `CommitUnknown` the owner claims the shard with the epoch of
        its former writer: this raises `Fenced` if another owner has taken over since. `lanes` are what
        the shards of a process share; without them the writer starts its own. Raises
        `DamagedFile` if a file is not what the manifest says. Of large segments this verifies what look-ups
        need; `maintain` verifies the rest.
        """
        store = index.shard_store(partition)
        store.prepare([SEGMENTS, TOMBSTONES, CENTROIDS])
        manifest = take_over_manifest(store, claim)
        state = open_for_look_ups(store, manifest)
        settings = settings or WriterSettings()
        return cls(index, partition, state=state, settings=settings, lanes=lanes, clock=clock)

    @property
    def manifest(self) -> Manifest:
        """The generation that this writer committed last."""
        return self._current.manifest

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
        """Everything below this offset is added, committed or still in the buffer."""
        return self._next_offset

    @property
    def committed_next_offset(self) -> int:
        return self.manifest.next_offset

    @property
    def has_changes(self) -> bool:
        return self._next_offset != self.committed_next_offset

    @property
    def merge_debt(self) -> int:
        """How many segments there are beyond what merging leaves, as far as they can be merged.

        While it grows, commit less often.
        """
        return self._merges.debt

    @property
    def erasure_backlog(self) -> ErasureBacklog:
        """What is still to be erased of deleted contents, and whether that will be in time."""
        return self._merges.erasure_backlog

    @property
    def is_verified(self) -> bool:
        """Whether nothing is left to verify of what the takeover has found."""
        return not self._current.state.deferred()

    @property
    def read_bytes(self) -> int:
        """Roughly the bytes that patches have had read into memory since the last commit."""
        return self._buffer.read_bytes

    def add(self, delta: Delta) -> None:
        """Fold a delta into the buffer; `DeltaMismatch` if it does not start at `next_offset`.

        A patch reads the content that it changes. If that raises `DamagedFile`, `Fenced` or `OSError`,
        nothing of the delta is in the buffer. After an `OSError` the same delta can be added again.
        """
        if delta.from_offset != self._next_offset:
            raise DeltaMismatch(self.shard, self._next_offset, delta.from_offset)
        unbuffered = {c.content_id for c in delta.changes if c.content_id not in self._buffer}
        known = self._current.state.find(list(unbuffered))
        self._prepare_patches(delta.changes, known)
        for change in delta.changes:
            self._buffer.apply(change, known.get(change.content_id, _NOTHING_KNOWN), self._current.state.read)
        self._next_offset = delta.next_offset
        self._watermark_ms = max(self._watermark_ms, delta.watermark_ms or 0)

    def _prepare_patches(self, changes: Sequence[Change], known: Mapping[str, KnownId]) -> None:
        """Verify what patches will read. Behind this nothing fails in the middle of a delta."""
        patched = {change.content_id for change in changes if isinstance(change, PatchedContent)}
        rows = [row for i in patched & known.keys() if (row := known[i].live_row) is not None]
        with self._current.reading():
            self._current.state.make_readable(rows)

    def find_derived(self, digest: bytes) -> Derived | None:
        """Return what the committed rows hold of the bytes with this digest.

        Any thread may ask: a generation is immutable, and its files stay mapped while somebody reads them.
        """
        return self._current.state.find_derived(digest)

    def commit(self) -> int:
        """Make everything that was added visible and durable in one step; return the next offset.

        Either a new generation that covers `next_offset` is current when this returns; or
        it raises and the shard shows what it showed before (`OSError`: the buffer is kept,
        commit again later; `Fenced`: another writer owns the shard), or only the disk can
        tell (`CommitUnknown`: take over again).

        Step 1 seals the buffer into a durable segment. Step 2 installs the new state: it
        writes the tombstones of the rows that the buffer has killed, opens what is new and
        links the manifest, the one atomic step. Nothing can fail after the link.
        """
        if not self.has_changes:
            return self.committed_next_offset
        sealed = self._seal()  # Step 1
        self._install(sealed)  # Step 2
        self._buffer = Buffer()
        return self.committed_next_offset

    def renew_watermark(self, watermark_ms: int) -> None:
        """Publish that every record at or before this time (ms since 1970) is committed."""
        write_watermark(self.store, Watermark(watermark_ms, self.committed_next_offset, self.epoch))

    def publish_traces(self, traces: Sequence[TracedRecord]) -> None:
        """Tell readers of the latest sampled records, before a commit brings the last of them."""
        write_traces(self.store, traces)

    def maintain(self) -> None:
        """Commit merges that have ended, start those that are due, collect garbage from time to time.

        Raises what `commit` raises: `Fenced` even while there is nothing to commit. A failed
        merge raises `MergeFailed` and is tried again after a wait. Meanwhile a thread verifies what the
        takeover has deferred. If it finds damage, this raises `DamagedFile` as the takeover would have.
        """
        with self._current.reading():
            self._lanes.verification.go_on(self.store.address, self._current.state.deferred())
            self._merges.run(self._buffer)
        now = self._clock()
        if 0 <= now - self._collected_at < self._settings.collect_every_seconds:
            return  # a negative age means that the clock was set back: collect
        self._collected_at = now
        of_store = now + self.store.seconds_ahead()  # the store dates the files whose ages are compared
        merges = self._merges
        self._current.collect_garbage(
            in_flight=merges.merged_ids(), merged_from=merges.generations(), now=of_store
        )

    def close(self) -> None:
        """Stop running merges. Does not commit: what is in the buffer is still in the log."""
        self._merges.kill()
        self._lanes.verification.forget(self.store.address)
        self.store.keep_local("writer", ())
        if self._owns_lanes:
            self._lanes.close()

    def _seal(self) -> list[SegmentEntry]:
        contents, deletes = self._buffer.contents(), self._buffer.deletes()
        if not contents and not deletes:
            return []
        rows = self._lists.listed(rows_from_buffer(contents, deletes), self.manifest.segments)
        return [write_segment(self.store, new_segment_id(self.epoch), rows, self._settings.write_sealed)]

    def _install(self, sealed: list[SegmentEntry]) -> None:
        dead = union_tombstones(self._current.state.dead, self._buffer.dead)
        kept = [entry for entry in self.manifest.segments if self._is_needed(entry, dead)]
        dead = {entry.segment_id: dead[entry.segment_id] for entry in kept if entry.segment_id in dead}
        self._current.install(
            next_offset=self._next_offset,
            segments=(*kept, *sealed),
            dead=dead,
            died={i: self._oldest_dead_ms(i) for i in self._buffer.dead.keys() & dead.keys()},
            added=sealed,
            watermark_ms=self._watermark_ms or None,
        )

    def _is_needed(self, entry: SegmentEntry, dead: Mapping[str, BitMap]) -> bool:
        """Tell whether the segment has a live row or remembers a delete, or is being merged.

        A dead row is not needed: the newer entry that killed it holds the floor of its id. But
        the tombstones of a merge's source tell which merged rows have died since the merge began.
        """
        is_dead = len(dead.get(entry.segment_id, ())) == entry.num_contents
        return not is_dead or entry.num_deletes > 0 or entry.segment_id in self._merges.source_ids()

    def _oldest_dead_ms(self, segment_id: str) -> int:
        """Return when the first row of a segment died: now, unless earlier rows are dead."""
        known = self.manifest.tombstones.get(segment_id)
        return known.oldest_dead_ms if known else int(self._clock() * 1000)
