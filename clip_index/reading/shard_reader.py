"""Follows the newest generation of one shard.

Generations usually only grow. They do not after the index was built again under the same path, or after
a backup was put back: then a smaller generation is current, or another commit has the known number. So
the reader knows its generation by number *and* digest, and looks once a second whether it is still there.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pyroaring import BitMap

from clip_index.content import Modality
from clip_index.errors import DamagedFile, GenerationGone, OtherFormat
from clip_index.generations.history import list_generations, manifest_name, read_manifest, read_newest
from clip_index.generations.manifest import (
    NO_GENERATION,
    GenerationKey,
    Manifest,
    SegmentEntry,
    TombstonesEntry,
)
from clip_index.generations.tombstones import read_tombstones
from clip_index.generations.watermark import read_watermark
from clip_index.reading.segment_view import SegmentView
from clip_index.reading.snapshot import ShardSnapshot, ShardView
from clip_index.reading.tail import build_tails
from clip_index.segments.segment import Segment
from clip_index.storage.file_digest import FileDigest, FileVerifier, check_size
from clip_index.storage.shard_store import ShardStore

_MAX_RETRIES = 10
_MAX_STEPS = 4
_LIST_EVERY_SECONDS = 1.0


class ShardReader:
    """Opens the newest generation of one shard and shares what did not change. One thread owns it."""

    def __init__(self, store: ShardStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._listed_at = -math.inf
        self._watermark_read_at = -math.inf
        self._verifier = FileVerifier()
        self._damage: tuple[GenerationKey, DamagedFile] | None = None
        self._writer_epoch = 0
        self._tombstones: Mapping[str, TombstonesEntry] = {}
        self.view = ShardView(store.name, ShardSnapshot(0, 0, 0, None, {}))
        self._paths: dict[str, Path] = {}
        self._damaged_copies: set[Path] = set()
        self.files: Mapping[Path, FileDigest] = {}

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
        *older, newest = list_generations(self._store) or [0]
        if not newest:
            return True  # nobody has begun the shard
        damage, damaged_files = self._damage, set[str]()
        for generation in reversed(older):
            try:
                manifest = read_manifest(self._store, generation)
                if manifest.segments and not damaged_files & {str(path) for path in self._files(manifest)}:
                    self.view = self._open(manifest)
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
        newest = max(list_generations(self._store), default=0)
        snapshot = self.view.snapshot
        if 0 < snapshot.generation < newest and snapshot.damaged_generation != newest:
            self.view = replace(self.view, snapshot=replace(snapshot, damaged_generation=newest))

    def _reload(self) -> bool:
        if not self._has_changed():
            if self._clock() - self._watermark_read_at >= self._store.look_every_seconds:
                self._follow_watermark()
            return False
        for _ in range(_MAX_RETRIES):
            try:
                manifest = self._read_newest()
                if manifest is None:
                    return self._stay_empty()
                if manifest.key == self.view.snapshot.key and not self._damaged_copies:
                    return False
                self.view = self._open(manifest)
            except FileNotFoundError:
                continue
            return True
        raise DamagedFile(self._store.address, "files of the newest generation are missing")

    def _read_newest(self) -> Manifest | None:
        """Read the newest generation: walk to it from the known one, which costs less than to list.

        If it is far away, or no generation follows the known one, another reason made us look: then list.
        """
        known = self.view.snapshot.generation
        for newest in range(known, known + _MAX_STEPS):
            if self._store.exists(manifest_name(newest + 1)):
                continue
            return read_newest(self._store) if newest == known else read_manifest(self._store, newest)
        return read_newest(self._store)

    def _stay_empty(self) -> bool:
        """There is no generation. If one was known, keep serving it: somebody is moving directories."""
        if known := self.view.snapshot.generation:
            raise DamagedFile(self._store.address, f"generation {known} was served, and there is none now")
        return False

    def _has_changed(self) -> bool:
        """Look for the next generation's file, which is cheap.

        Also list the directory once a second, because that file may have been collected already, or the
        shard may have been replaced.
        """
        generation = self.view.snapshot.generation
        if self._damaged_copies or self._store.exists(manifest_name(generation + 1)):
            return True
        if self._clock() - self._listed_at < max(_LIST_EVERY_SECONDS, self._store.look_every_seconds):
            return False
        self._listed_at = self._clock()
        newest = max(list_generations(self._store), default=0)
        return newest != generation or not self._is_still_there()

    def _is_still_there(self) -> bool:
        """Whether the served generation is in the shard, and not another commit under its number."""
        known = self.view.snapshot.key
        if known == NO_GENERATION:
            return True
        try:
            return read_manifest(self._store, known.number).key == known
        except (FileNotFoundError, DamagedFile, OtherFormat):
            return False

    def _open(self, manifest: Manifest) -> ShardView:
        if self._damage is not None and self._damage[0] == manifest.key:
            raise self._damage[1]
        mended = frozenset(self._damaged_copies)
        try:
            files = self._files(manifest)
            for name, digest in manifest.files():
                self._verify(name, digest)
            segments = self._open_segments(manifest)
        except DamagedFile as damage:
            self._damage = (manifest.key, damage)
            raise
        self._verifier.retain(set(files))
        self._store.keep_local("reader", self._paths)
        self._damaged_copies.difference_update(mended)
        self.files = files
        self._tombstones = manifest.tombstones
        view = self._build_view(manifest, segments, known_ms=self._watermark_before(manifest))
        self._writer_epoch = manifest.writer_epoch
        return view

    def _watermark_before(self, manifest: Manifest) -> int | None:
        """The known watermark, if this manifest continues the known generation.

        It does not after a repair or a rollback, and not in a shard that was built again or put back.
        """
        known = self.view.snapshot
        is_continued = manifest.next_offset >= known.next_offset and self._is_still_there()
        return known.watermark_ms if is_continued else None

    def _files(self, manifest: Manifest) -> dict[Path, FileDigest]:
        """Return where the files of a generation are; the store is asked only for those that are new."""
        former, self._paths = self._paths, {}
        for name, digest in manifest.files():
            self._paths[name] = former.get(name) or self._store.local_file(name, digest)
        return {self._paths[name]: digest for name, digest in manifest.files()}

    def _verify(self, name: str, digest: FileDigest) -> None:
        """Verify a file once. A local copy that is damaged or was removed is fetched again, once."""
        try:
            self._verifier.verify(self._paths[name], digest)
        except (DamagedFile, FileNotFoundError) as error:
            if isinstance(error, DamagedFile) and not self._store.forget_copy(self._paths[name]):
                raise
            self._verifier.verify(self._store.local_file(name, digest), digest)

    def mend(self, path: Path) -> bool:
        """Replace a served local copy that is damaged, at the next reload; False if it is the only one."""
        if path not in self.files or not self._store.forget_copy(path):
            return False
        self._verifier.retain({known for known in self.files if known != path})
        self._damaged_copies.add(path)
        return True

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
        if known is not None and (known.segment.entry != entry or self._is_damaged(entry)):
            known = None
        tombstones = manifest.tombstones.get(entry.segment_id)
        if known is not None and tombstones == self._tombstones.get(entry.segment_id):
            return known
        if known is None:
            self._check_sizes(entry)
        dead = read_tombstones(self._store, tombstones) if tombstones else BitMap()
        return SegmentView(known.segment if known else Segment(self._store, entry), dead, known)

    def _is_damaged(self, entry: SegmentEntry) -> bool:
        """Whether a damaged copy of the segment is mapped, so that it must be opened anew."""
        if not self._damaged_copies:
            return False
        return any(self._paths[name] in self._damaged_copies for name, _ in entry.stored_files())

    def _check_sizes(self, entry: SegmentEntry) -> None:
        for name, digest in entry.stored_files():
            check_size(self._store.local_file(name, digest), digest)

    def open_former(self, key: GenerationKey) -> ShardView:
        """Open a generation that is not the newest; `GenerationGone` if it was collected or replaced."""
        if key == self.view.snapshot.key:
            return self.view
        if key == NO_GENERATION:
            return ShardView(self._store.name, ShardSnapshot(0, 0, 0, None, {}))
        try:
            manifest = read_manifest(self._store, key.number)
            if manifest.key != key:
                raise GenerationGone(self._store.name, key.number)
            self._files(manifest)
            for name, digest in manifest.files():
                self._verify(name, digest)
            return self._build_view(manifest, self._open_segments(manifest), known_ms=None)
        except FileNotFoundError:
            raise GenerationGone(self._store.name, key.number) from None

    def _build_view(
        self, manifest: Manifest, segments: tuple[SegmentView, ...], *, known_ms: int | None
    ) -> ShardView:
        num_contents: Counter[Modality] = Counter()
        for view in segments:
            num_contents.update(view.num_live)
        snapshot = ShardSnapshot(
            generation=manifest.generation,
            first_offset=manifest.first_offset,
            next_offset=manifest.next_offset,
            watermark_ms=self._watermark_ms(manifest.next_offset, manifest.writer_epoch, known_ms),
            num_contents=dict(num_contents),
            num_segments=len(segments),
            digest=manifest.key.digest,
            size_bytes=sum(digest.size_bytes for _, digest in manifest.files()),
        )
        return ShardView(self._store.name, snapshot, segments, build_tails(segments, self.view.tails))

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
        self._watermark_read_at = self._clock()
        watermark = read_watermark(self._store)
        if watermark is None or watermark.next_offset > next_offset or watermark.writer_epoch > writer_epoch:
            return known_ms
        return max(watermark.watermark_ms, known_ms or 0)
