"""The newest generation of a shard, as its owner holds, replaces and tidies it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from uuid import uuid4

from pyroaring import BitMap

from clip_index.errors import CommitUnknown, DamagedFile, Fenced, OtherFormat
from clip_index.generations.garbage import GarbageCollector
from clip_index.generations.history import GenerationTaken, read_newest
from clip_index.generations.installation import PlannedGeneration, install
from clip_index.generations.manifest import Manifest, SegmentEntry, TombstonesEntry
from clip_index.generations.tombstones import due_for_files, with_died
from clip_index.storage.shard_store import ShardStore
from clip_index.writing.shard_state import ShardState, next_state


class CurrentState:
    """What one writer's commits and merges replace. After `Fenced` or `CommitUnknown` it is useless."""

    def __init__(
        self, store: ShardStore, state: ShardState, *, retain_for_seconds: float, max_bitmap_bytes: int
    ) -> None:
        self.store = store
        self.state = state
        self._max_bitmap_bytes = max_bitmap_bytes
        self._garbage = GarbageCollector(store, retain_for_seconds)
        self._keep_local()

    @property
    def manifest(self) -> Manifest:
        return self.state.manifest

    def install(
        self,
        *,
        next_offset: int,
        segments: tuple[SegmentEntry, ...],
        dead: Mapping[str, BitMap],
        died: Mapping[str, int],
        added: Collection[SegmentEntry],
        watermark_ms: int | None = None,
    ) -> None:
        """Commit a generation of these segments and dead rows; either/or as `install` says.

        `died` names the segments whose dead rows changed, and when the oldest dead row of each
        died (ms since 1970). `added` are the segments that were written for this generation. Without a
        `watermark_ms` that of the last generation stays.
        """
        tombstones = self._tombstones(dead, died)
        manifest = replace(
            self.manifest,
            generation=self.manifest.generation + 1,
            nonce=uuid4().hex,
            next_offset=next_offset,
            segments=segments,
            tombstones=tombstones,
            watermark_ms=watermark_ms or self.manifest.watermark_ms,
        )
        planned = PlannedGeneration(
            manifest,
            {i: dead[i] for i in due_for_files(tombstones, self._max_bitmap_bytes)},
            tuple(entry.segment_id for entry in added),
        )
        with self._owning():
            state = install(
                self.store, planned, lambda linked: next_state(self.store, self.state, linked, dead)
            )
        self._garbage.learn(state.manifest)
        self.state = state
        self._keep_local()

    def _keep_local(self) -> None:
        self.store.keep_local("writer", [name for name, _ in self.manifest.files()])

    def _tombstones(self, dead: Mapping[str, BitMap], died: Mapping[str, int]) -> dict[str, TombstonesEntry]:
        """Return the tombstones of the next generation, as if all that is new went into its manifest."""
        known, before = self.manifest.tombstones, self.state.dead
        kept = {i: entry for i, entry in known.items() if i in dead}
        changed = {
            i: with_died(known.get(i), dead[i] - before.get(i, BitMap()), oldest_dead_ms)
            for i, oldest_dead_ms in died.items()
        }
        return {**kept, **changed}

    def collect_garbage(
        self, *, in_flight: Collection[str], merged_from: Collection[int], now: float
    ) -> None:
        """Remove what no reader needs any more.

        `in_flight` are segments that merges write, and `merged_from` the generations that they read.
        """
        with self._owning():
            self._garbage.collect(
                newest=self.manifest.generation, in_flight=in_flight, merged_from=merged_from, now=now
            )

    @contextmanager
    def _owning(self) -> Iterator[None]:
        """Raise `Fenced` or `CommitUnknown` if another generation than ours is the newest."""
        try:
            yield
        except GenerationTaken:
            self._refuse_if_fenced()
            generation = self.manifest.generation
            raise CommitUnknown(f"{self.store.name}: generation {generation} is not the newest") from None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise `Fenced` instead of `DamagedFile` if another writer owns the shard.

        That writer removes files which this one still names, once it has merged them. Where a repair has
        fenced this writer, the damage is mended.
        """
        try:
            yield
        except DamagedFile:
            with suppress(DamagedFile, OtherFormat, OSError):
                self._refuse_if_fenced()
            raise

    def _refuse_if_fenced(self) -> None:
        newest, own_epoch = read_newest(self.store), self.manifest.writer_epoch
        if newest is not None and newest.writer_epoch > own_epoch:
            raise Fenced(self.store.name, own_epoch, newest.writer_epoch) from None
