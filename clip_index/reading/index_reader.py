"""Follows the newest generations of an index and keeps a searcher over them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from pyroaring import BitMap

from clip_index.content import Modality
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.errors import DamagedFile, EncoderMismatch, GenerationGone, IndexMissing, OtherFormat
from clip_index.generations.history import list_generations, manifest_name, read_manifest, read_newest
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.manifest import (
    NO_GENERATION,
    GenerationKey,
    Manifest,
    SegmentEntry,
    TombstonesEntry,
)
from clip_index.generations.tombstones import read_tombstones
from clip_index.generations.watermark import read_watermark
from clip_index.reading.searcher import Searcher, ShardSnapshot, ShardView
from clip_index.reading.segment_view import SegmentView
from clip_index.reading.tail import build_tails
from clip_index.segments.segment import Segment
from clip_index.storage.file_digest import FileDigest, FileVerifier
from clip_index.storage.shard_store import ShardStore

_MAX_RETRIES = 10
_LIST_EVERY_SECONDS = 1.0


class ShardReader:
    """Opens the newest generation of one shard, sharing what did not change. Owned by one thread."""

    def __init__(self, store: ShardStore, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._listed_at = -_LIST_EVERY_SECONDS
        self._verifier = FileVerifier()
        self._damage: tuple[int, DamagedFile] | None = None
        self._tombstones: Mapping[str, TombstonesEntry] = {}
        self.view = ShardView(store.name, ShardSnapshot(0, 0, 0, None, {}))
        self.files: Mapping[Path, FileDigest] = {}

    def reload(self) -> bool:
        """Switch to the newest generation if there is a newer one; True if there was.

        Raises `DamagedFile` and keeps the view if the new one is damaged. A file that was
        collected meanwhile means that there is a newer generation still: start again.
        """
        if not self._has_newer():
            self._follow_watermark()
            return False
        for _ in range(_MAX_RETRIES):
            try:
                manifest = read_newest(self._store)
                if manifest is None or manifest.generation == self.view.snapshot.generation:
                    return False
                self.view = self._open(manifest)
            except FileNotFoundError:
                continue
            return True
        raise DamagedFile(self._store.address, "files of the newest generation are missing")

    def _has_newer(self) -> bool:
        """Look for the next number, which is cheap; now and then list, should it have been collected."""
        generation = self.view.snapshot.generation
        if self._store.exists(manifest_name(generation + 1)):
            return True
        if self._clock() - self._listed_at < _LIST_EVERY_SECONDS:
            return False
        self._listed_at = self._clock()
        return any(found > generation for found in list_generations(self._store)[-1:])

    def _open(self, manifest: Manifest) -> ShardView:
        if self._damage is not None and self._damage[0] == manifest.generation:
            raise self._damage[1]
        try:
            files = self._files(manifest)
            for path, digest in files.items():
                self._verifier.verify(path, digest)
            segments = self._open_segments(manifest)
        except DamagedFile as damage:
            self._damage = (manifest.generation, damage)
            raise
        self._verifier.retain(set(files))
        self.files = files
        self._tombstones = manifest.tombstones
        known = self.view.snapshot
        has_gone_back = manifest.next_offset < known.next_offset  # a repair or rollback
        return self._build_view(manifest, segments, known_ms=None if has_gone_back else known.watermark_ms)

    def _files(self, manifest: Manifest) -> dict[Path, FileDigest]:
        return {self._store.local_file(name): digest for name, digest in manifest.files()}

    def _open_segments(self, manifest: Manifest) -> tuple[SegmentView, ...]:
        opened = {view.segment.segment_id: view for view in self.view.segments}
        views = [
            self._open_segment(manifest, entry, opened.get(entry.segment_id)) for entry in manifest.segments
        ]
        return tuple(views)

    def _open_segment(
        self, manifest: Manifest, entry: SegmentEntry, known: SegmentView | None
    ) -> SegmentView:
        """Share the view while its dead rows are the same, and the segment in any case."""
        tombstones = manifest.tombstones.get(entry.segment_id)
        if known is not None and tombstones == self._tombstones.get(entry.segment_id):
            return known
        dead = read_tombstones(self._store, tombstones.file_name) if tombstones else BitMap()
        return SegmentView(known.segment if known else Segment(self._store, entry), dead, known)

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
            for path, digest in self._files(manifest).items():
                self._verifier.verify(path, digest)
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
            watermark_ms=self._watermark_ms(manifest.next_offset, known_ms),
            num_contents=dict(num_contents),
            num_segments=len(segments),
            digest=manifest.key.digest,
        )
        return ShardView(self._store.name, snapshot, segments, build_tails(segments, self.view.tails))

    def _follow_watermark(self) -> None:
        snapshot = self.view.snapshot
        watermark_ms = self._watermark_ms(snapshot.next_offset, snapshot.watermark_ms)
        if watermark_ms != snapshot.watermark_ms:
            self.view = replace(self.view, snapshot=replace(snapshot, watermark_ms=watermark_ms))

    def _watermark_ms(self, next_offset: int, known_ms: int | None) -> int | None:
        """A watermark holds for every generation that covers its next offset; a later one is no smaller."""
        watermark = read_watermark(self._store)
        if watermark is None or watermark.next_offset > next_offset:
            return known_ms
        return max(watermark.watermark_ms, known_ms or 0)


class IndexReader:
    """Keeps a searcher over the newest readable generations. `reload` is called by one thread at a time."""

    def __init__(
        self,
        root: Path,
        index_id: str | None = None,
        fingerprint: EncoderFingerprint | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`fingerprint` is of the encoder that queries will come from, None to read without one."""
        self._root = root
        self._index_id = index_id
        self._fingerprint = fingerprint
        self._clock = clock
        self._shards: list[ShardReader] = []
        self._served: list[ShardView] = []
        self.index: IndexDirectory | None = None
        self.searcher: Searcher | None = None

    def reload(self) -> bool:
        """Serve the newest generations; True if anything newer is served now.

        Raises `IndexMissing`, `EncoderMismatch`, or the `DamagedFile`, `OtherFormat` or `OSError` of a
        shard: then that one is served as before while the others move on; without a former view nothing is.
        """
        if self.index is None:
            self.index = self._open_index()
            partitions = range(self.index.description.num_partitions)
            self._shards = [ShardReader(self.index.shard_store(p), self._clock) for p in partitions]
        failures = []
        for shard in self._shards:
            try:
                shard.reload()
            except (DamagedFile, OtherFormat, OSError) as failure:
                failures.append((shard, failure))
        if any(shard.view.snapshot.generation == 0 for shard, _ in failures):
            raise failures[0][1]
        has_newer = self._serve([shard.view for shard in self._shards], self.index)
        if failures:
            raise failures[0][1]
        return has_newer

    def open_former(self, generations: Mapping[str, GenerationKey]) -> Searcher:
        """Open a searcher over the given generations, one for each shard; shares what is open.

        Writers keep a generation for some minutes after the next; later `GenerationGone` names
        the first that is missing, as for shards that this index has not, and for a number that
        another commit has taken since. For the thread that reloads.
        """
        if self.index is None:
            raise IndexMissing("no index is open yet")
        shards = {shard.view.name: shard for shard in self._shards}
        if strange := sorted(generations.keys() ^ shards.keys()):
            raise GenerationGone(strange[0], generations.get(strange[0], NO_GENERATION).number)
        views = [shards[name].open_former(generations[name]) for name in shards]
        return Searcher(views, self.index.description.fingerprint.dimension)

    def served_files(self) -> dict[Path, FileDigest]:
        """Return the files of the generations that are served, each verified before it was first opened."""
        return {path: digest for shard in self._shards for path, digest in shard.files.items()}

    def _serve(self, views: list[ShardView], index: IndexDirectory) -> bool:
        """Compare with what is served, not with what this reload found: a former one may have failed."""
        has_newer = _generations(views) > _generations(self._served)
        if [id(view) for view in views] != [id(view) for view in self._served]:
            self.searcher = Searcher(views, index.description.fingerprint.dimension)
            self._served = views
        return has_newer

    def _open_index(self) -> IndexDirectory:
        index = IndexDirectory.open(self._root, self._index_id)
        built_by = index.description.fingerprint
        if self._fingerprint is not None and built_by != self._fingerprint:
            raise EncoderMismatch(built_by=str(built_by), running=str(self._fingerprint))
        return index


def _generations(views: list[ShardView]) -> int:
    """Grows whenever a generation does."""
    return sum(view.snapshot.generation for view in views)
