"""Follows the newest generation of one shard.

Generations usually only grow. They do not after the index was built again under the same path, or after
a backup was put back: then a smaller generation is current, or another commit has the known number. So
the reader knows its generation by number *and* digest, and looks once a second whether it is still there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

from pyroaring import BitMap

from clip_index.errors import DamagedFile, GenerationGone
from clip_index.generations.history import ManifestReader, list_generations, manifest_name, read_manifest
from clip_index.generations.manifest import (
    NO_GENERATION,
    GenerationKey,
    Manifest,
    SegmentEntry,
    TombstonesEntry,
)
from clip_index.generations.tombstones import read_tombstones
from clip_index.generations.watermark import read_watermark
from clip_index.reading.held_generations import HeldGenerations
from clip_index.reading.located_files import LocatedFiles
from clip_index.segments.segment import Segment
from clip_index.storage.file_digest import FileDigest
from clip_index.storage.shard_store import ShardStore
from clip_index.vectors.centroid_set import CentroidSets
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import ShardSnapshot, ShardView, count_contents
from clip_index.views.tail import build_tails

_FOLLOW_WATERMARK_EVERY_SECONDS = 0.2
"""While other shards commit. It is a time that a reader shows, and no content waits for it."""
_MAX_RETRIES = 10
_MAX_STEPS = 4
_LIST_EVERY_SECONDS = 1.0
_WALK_WITHIN_SECONDS = 10.0
"""So long ago the known generation was the newest. Writers keep its successors for some minutes."""


class ShardReader:
    """Opens the newest generation of one shard and shares what did not change. One thread owns it."""

    def __init__(
        self,
        store: ShardStore,
        clock: Callable[[], float],
        sets: CentroidSets | None = None,
        held: HeldGenerations | None = None,
    ) -> None:
        """Readers with the same `sets` have each set of centroids in memory once.

        `held` holds on a shared file system what is being opened.
        """
        self._held = held
        self.store = store
        self._sets = sets or CentroidSets()
        self._clock = clock
        self._listed_at = -math.inf
        self._was_newest_at = -math.inf
        self._watermark_read_at = -math.inf
        self._files = LocatedFiles(store)
        self._damage: tuple[GenerationKey, DamagedFile] | None = None
        self._writer_epoch = 0
        self._tombstones: Mapping[str, TombstonesEntry] = {}
        self.view = ShardView(store.name, ShardSnapshot(0, 0, 0, None, {}))
        self._manifests = ManifestReader(store)
        self._manifest_data = b""
        self._user = f"reader {uuid4().hex}"
        self._is_closed = False

    def reload(self) -> bool:
        """Switch to the current generation unless it is served already; True if another one is served now.

        If the new generation is damaged, raise `DamagedFile` and keep the view, which then names the
        damaged generation. If a file was collected meanwhile, a still newer generation exists: start
        again.
        """
        try:
            return self._reload()
        except DamagedFile:
            self._note_damage()
            raise

    def fall_back(self) -> bool:
        """Open the newest good generation of a shard whose newest one is damaged; False if none is good.

        A generation without contents does not count: answers would seem to be of an empty shard.
        """
        *older, newest = list_generations(self.store) or [0]
        if not newest:
            return True  # nobody has begun the shard
        damage, damaged_files = self._damage, set[str]()
        for generation in reversed(older):
            try:
                manifest, data = self._manifests.read(generation)
                files = {str(self.store.local_file(name, digest)) for name, digest in manifest.files()}
                if manifest.segments and not damaged_files & files:
                    self.view = self._open(manifest, data)
                    break
            except DamagedFile as found:
                damaged_files.add(found.file)
            except FileNotFoundError:
                continue
        self._damage = damage
        self._note_damage()
        return self.view.snapshot.generation > 0

    def _note_damage(self) -> None:
        """Say in the view that a newer generation is there and damaged."""
        newest = max(list_generations(self.store), default=0)
        snapshot = self.view.snapshot
        if 0 < snapshot.generation < newest and snapshot.damaged_generation != newest:
            self.view = replace(self.view, snapshot=replace(snapshot, damaged_generation=newest))

    def _reload(self) -> bool:
        if not self._has_changed():
            if not self._has_read_watermark_lately():
                self._follow_watermark()
            return False
        for _ in range(_MAX_RETRIES):
            looked_at = self._clock()
            try:
                found = self._read_newest()
                if found is None:
                    return self._stay_empty()
                manifest, data = found
                if manifest.key == self.view.snapshot.key and not self._files.damaged_copies:
                    return False
                self.view = self._open(manifest, data)
            except FileNotFoundError:
                continue
            self._was_newest_at = self._listed_at = looked_at
            return True
        raise DamagedFile(self.store.address, "files of the newest generation are missing")

    def _read_newest(self) -> tuple[Manifest, bytes] | None:
        """Read the newest generation. Walk to it from the known one, because a listing costs money or time.

        A shard that commits all the time keeps thousands of generations, and a listing takes 1 ms of CPU for
        each thousand. If the newest one is far away, or none follows the known one, another reason made us
        look: then list.
        """
        known = self.view.snapshot.generation
        steps = _MAX_STEPS if known and self._may_walk() and self.store.exists(manifest_name(known)) else 0
        for newest in range(known, known + steps):
            if self.store.exists(manifest_name(newest + 1)):
                continue
            return self._read_listed() if newest == known else self._manifests.read(newest)
        return self._read_listed()

    def _may_walk(self) -> bool:
        """Whether what lies behind the known generation must be its successors.

        If the known one is gone, or its successors may be, a manifest of a fenced writer may lie there, which
        does not count.
        """
        age_seconds = self._clock() - self._was_newest_at
        return age_seconds < _WALK_WITHIN_SECONDS + self.store.look_every_seconds

    def _read_listed(self) -> tuple[Manifest, bytes] | None:
        """Read the newest generation of a listing, unless the listing is older than what is known.

        Network file systems and some stores list for some seconds what was there before. Then the known
        generation is still there although the listing lacks it, and others may have followed.
        """
        found = self._manifests.read_newest()
        known = self.view.snapshot.generation
        if not known or (found and found[0].generation > known) or not self._is_still_there():
            return found
        newest = known
        while newest < known + _MAX_STEPS and self.store.exists(manifest_name(newest + 1)):
            newest += 1
        return self._manifests.read(newest)

    def _stay_empty(self) -> bool:
        """There is no generation. If one was known, keep serving it: somebody is moving directories."""
        if known := self.view.snapshot.generation:
            raise DamagedFile(self.store.address, f"generation {known} was served, and there is none now")
        return False

    def look_for_successor(self) -> Callable[[], bool]:
        """Return a cheap question: is there a generation behind the one that is served now?"""
        return self.store.look_for(manifest_name(self.view.snapshot.generation + 1))

    def _has_changed(self) -> bool:
        """Look for the next generation's file, which is cheap.

        Also list the directory once a second, because that file may have been collected already, or the
        shard may have been replaced.
        """
        generation = self.view.snapshot.generation
        if self._files.damaged_copies or self.store.exists(manifest_name(generation + 1)):
            return True
        now = self._clock()
        if now - self._listed_at < max(_LIST_EVERY_SECONDS, self.store.look_every_seconds):
            return False
        self._listed_at = now
        newest = max(list_generations(self.store), default=0)
        if newest != generation or not self._is_still_there():
            return True
        self._was_newest_at = now
        return False

    def _is_still_there(self) -> bool:
        """Whether the served generation is in the shard, and not another commit under its number."""
        known = self.view.snapshot.key
        if known == NO_GENERATION:
            return True
        try:
            return self.store.read(manifest_name(known.number)) == self._manifest_data
        except (FileNotFoundError, DamagedFile):
            return False

    def _open(self, manifest: Manifest, data: bytes) -> ShardView:
        """Verify and open what the served generation does not have; `data` are the manifest's bytes."""
        if self._damage is not None and self._damage[0] == manifest.key:
            raise self._damage[1]
        mended = self._files.begin_mending()
        try:
            located = self._files.locate_verified(manifest, partial(self._hold, manifest.generation))
            segments = self._open_segments(manifest)
        except DamagedFile as damage:
            self._damage = (manifest.key, damage)
            raise
        view = self._build_view(manifest, segments, known_ms=self._watermark_before(manifest))
        self._files.serve(located, mended)
        self._tombstones, self._manifest_data = manifest.tombstones, data
        self._writer_epoch = manifest.writer_epoch
        self._keep_local([name for name, _ in manifest.files()])
        return view

    def _hold(self, generation: int) -> None:
        if self._held is not None:
            self._held.opening(self.store, generation)

    def close(self) -> None:
        """Give up the local copies, when nobody uses the views any more. Another thread may call this."""
        self._is_closed = True
        self.store.keep_local(self._user, ())

    def _keep_local(self, names: Collection[str]) -> None:
        """Each reader names its own copies, because a shard may have two: its index is served again."""
        self.store.keep_local(self._user, names)
        if self._is_closed:  # meanwhile
            self.store.keep_local(self._user, ())

    def mend(self, path: Path) -> bool:
        """Replace a served local copy that is damaged, at the next reload; False if it is the only one."""
        return self._files.mend(path)

    def files(self) -> dict[Path, FileDigest]:
        """Return the files of the served generation. Another thread may call this."""
        return self._files.served()

    def _watermark_before(self, manifest: Manifest) -> int | None:
        """The known watermark, if this manifest continues the known generation.

        It does not after a repair or a rollback, and not in a shard that was built again or put back. None
        also where it does not matter, because the manifest itself has a later one.
        """
        known = self.view.snapshot
        if known.watermark_ms is None or known.watermark_ms <= (manifest.watermark_ms or 0):
            return None
        is_continued = manifest.next_offset >= known.next_offset and self._is_still_there()
        return known.watermark_ms if is_continued else None

    def _open_segments(self, manifest: Manifest) -> tuple[SegmentView, ...]:
        opened = {view.segment.segment_id: view for view in self.view.segments}
        views = [
            self._open_segment(manifest, entry, opened.get(entry.segment_id)) for entry in manifest.segments
        ]
        return tuple(views)

    def _open_segment(
        self, manifest: Manifest, entry: SegmentEntry, known: SegmentView | None
    ) -> SegmentView:
        """Share the known view if its dead rows are the same, else its segment.

        A shard that was built again has other segments under the same ids, so the files are compared.
        """
        if known is not None and known.segment.entry is not entry and known.segment.entry != entry:
            known = None
        if self._files.has_damaged_copy(entry.stored_name):
            known = None
        tombstones = manifest.tombstones.get(entry.segment_id)
        if known is not None and tombstones == self._tombstones.get(entry.segment_id):
            return known
        if known is None:
            self._files.check_sizes(entry)
        dead = read_tombstones(self.store, tombstones) if tombstones else BitMap()
        return SegmentView(known.segment if known else Segment(self.store, entry, self._sets), dead, known)

    def open_former(self, key: GenerationKey) -> ShardView:
        """Open a generation that is not the newest; `GenerationGone` if it was collected or replaced."""
        if key == self.view.snapshot.key:
            return self.view
        if key == NO_GENERATION:
            return ShardView(self.store.name, ShardSnapshot(0, 0, 0, None, {}))
        if self._held is not None:
            self._held.opening_former(self.store, key.number)
        try:
            manifest = read_manifest(self.store, key.number)
            if manifest.key != key:
                raise GenerationGone(self.store.name, key.number)
            self._files.verify(manifest.files())
            return self._build_view(manifest, self._open_segments(manifest), known_ms=None)
        except FileNotFoundError:
            raise GenerationGone(self.store.name, key.number) from None

    def _build_view(
        self, manifest: Manifest, segments: tuple[SegmentView, ...], *, known_ms: int | None
    ) -> ShardView:
        if manifest.watermark_ms is not None:
            known_ms = max(manifest.watermark_ms, known_ms or 0)
        snapshot = ShardSnapshot(
            generation=manifest.generation,
            first_offset=manifest.first_offset,
            next_offset=manifest.next_offset,
            watermark_ms=self._watermark_ms(manifest.next_offset, manifest.writer_epoch, known_ms),
            num_contents=count_contents(segments),
            num_segments=len(segments),
            digest=manifest.key.digest,
            size_bytes=sum(digest.size_bytes for _, digest in manifest.files()),
        )
        return ShardView(self.store.name, snapshot, segments, build_tails(segments, self.view.tails))

    def _has_read_watermark_lately(self) -> bool:
        every_seconds = max(_FOLLOW_WATERMARK_EVERY_SECONDS, self.store.look_every_seconds)
        return self._clock() - self._watermark_read_at < every_seconds

    def _follow_watermark(self) -> None:
        snapshot = self.view.snapshot
        watermark_ms = self._watermark_ms(snapshot.next_offset, self._writer_epoch, snapshot.watermark_ms)
        if watermark_ms != snapshot.watermark_ms and self._is_still_there():
            self.view = replace(self.view, snapshot=replace(snapshot, watermark_ms=watermark_ms))

    def _watermark_ms(self, next_offset: int, writer_epoch: int, known_ms: int | None) -> int | None:
        """Return the watermark of a generation, which never falls below the known one.

        A stored watermark holds for every generation of its writer epoch, or of a later one, that covers
        its next offset.
        """
        if known_ms is not None and self._has_read_watermark_lately():
            return known_ms
        self._watermark_read_at = self._clock()
        watermark = read_watermark(self.store)
        if watermark is None or watermark.next_offset > next_offset or watermark.writer_epoch > writer_epoch:
            return known_ms
        return max(watermark.watermark_ms, known_ms or 0)
