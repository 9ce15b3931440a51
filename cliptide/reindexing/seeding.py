"""Writes contents that the log would not rebuild into a new index, before its consumer begins there."""

from __future__ import annotations

import hashlib
import heapq
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clip_index.content import Change, Delta, Embeddings, EncodedContent, RemovedContent
from clip_index.encoder.protocol import Encoder, Prepared, PreparedText
from clip_index.errors import BadContent, IndexRefused
from clip_index.generations.history import GenerationTaken, read_newest
from clip_index.generations.restoration import Restoration, commit_restoration
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.shard_reader import ShardReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.shard_store import ShardStore
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import ShardView
from clip_index.writing.shard_writer import ShardWriter
from cliptide.reindexing.kept_contents import KeptContent, find_floors, find_kept
from cliptide.reindexing.retained_log import RetainedLog

Fetch = Callable[[str], bytes]
MAX_FETCHED_BYTES = 64 * 2**20
CHANGES_OF_A_COMMIT = 4096
_FETCH_SECONDS = 20.0
_BATCH = 32
_WRITER = "reindex"


@dataclass(slots=True)
class Seeding:
    """Takes kept contents over from the served index.

    Each shard gets generations that cover the log up to its present start, so the consumer goes on where
    the log begins. Offsets, versions and facts are those of the served index. `lost` collects what could
    not be taken, with the reason.

    It may be ended at any time, and repeated until the consumer begins: a repetition encodes what is not
    there yet, takes what could not be taken before, and removes what the served index has lost since.
    """

    index: IndexDirectory
    encoder: Encoder
    fetch: Fetch | None = None
    lost: list[tuple[KeptContent, str]] = field(default_factory=list)
    num_taken: int = 0

    def write(self, served: Searcher, log: RetainedLog) -> None:
        """Seed each shard whose first records the log has lost; `IndexRefused` if a consumer was there."""
        kept: dict[str, list[KeptContent]] = {view.name: [] for view in served.shard_views}
        for one in find_kept(served, log):
            kept[one.shard].append(one)
        views = {view.name: view for view in served.shard_views}
        for partition in self.index.partitions:
            view = views[self.index.shard_name(partition)]
            if log.has_room(view):
                self._seed(partition, view, kept[view.name], log.starts[view.name])
            else:
                self.lost.extend((one, _NO_ROOM) for one in kept[view.name])

    def _seed(self, partition: int, view: ShardView, kept: Sequence[KeptContent], log_start: int) -> None:
        """Step 1 finds what an earlier call has left. Step 2 goes back to the shard's first offset, because
        changes come in the order of offsets. Step 3 adds what is missing, in commits of bounded size.
        """
        store, last = self.index.shard_store(partition), log_start - 1
        self._refuse_consumers(store)
        wanted = [_before(one, log_start) for one in kept]
        present = _present(store)  # Step 1
        missing = [one for one in wanted if present.get(one.content.content_id) != one.content.offset]
        self.num_taken += len(wanted) - len(missing)
        removed = sorted([*_floors(view, present, last), *_surplus(present, wanted, last)], key=_offset_of)
        _go_back(store)  # Step 2
        writer = ShardWriter.take_over(self.index, partition, Claim(_WRITER, view.snapshot.first_offset))
        try:
            for part in _in_parts(heapq.merge(removed, self._encoded(missing), key=_offset_of)):  # Step 3
                _commit(writer, part[-1].offset + 1, part)
            _commit(writer, log_start)
        finally:
            writer.close()

    def _refuse_consumers(self, store: ShardStore) -> None:
        newest = read_newest(store)
        if newest is not None and newest.writer_id != _WRITER:
            raise IndexRefused(
                f"the index {self.index.index_id} is being built already: kept contents can only be taken "
                "before its consumer begins"
            )

    def _encoded(self, kept: Sequence[KeptContent]) -> Iterator[Change]:
        for start in range(0, len(kept), _BATCH):
            prepared = [(one, self._prepare(one)) for one in kept[start : start + _BATCH]]
            good = [(one, item) for one, item in prepared if item is not None]
            rows = self.encoder.encode([item for _, item in good]) if good else []
            for (one, item), embeddings in zip(good, rows, strict=True):
                self.num_taken += 1
                yield _encoded_content(one, item, embeddings)

    def _prepare(self, one: KeptContent) -> Prepared | None:
        """Prepare a content from where it can be taken; None, and a note of why, if that is nowhere."""
        try:
            if one.source == "text":
                return self.encoder.prepare_text(one.content.facts.text or "")
            return self.encoder.prepare_image(self._fetched(one))
        except (_Lost, BadContent, OSError) as error:
            self.lost.append((one, str(error)))
            return None

    def _fetched(self, one: KeptContent) -> bytes:
        """Return the bytes of a picture from its link. Raises `_Lost` or `OSError`."""
        if one.source == "lost":
            raise _Lost("the index keeps no copy of it, and no digest of a linked one")
        if self.fetch is None:
            raise _Lost("it has to be fetched from its link (--fetch)")
        data = self.fetch(one.content.facts.link or "")
        if hashlib.sha256(data).hexdigest() != one.content.facts.sha256:
            raise _Lost("what its link gives is another file now")
        return data


class _Lost(Exception):
    """A content that cannot be taken; the message says why."""


_NO_ROOM = "compaction has removed its upload, and nothing can be put before the beginning of the log"


def _before(one: KeptContent, log_start: int) -> KeptContent:
    """Give a content an offset below the log's start. A patched one has that of the patch, which stays."""
    offset = min(one.content.offset, log_start - 1)
    return replace(one, content=replace(one.content, offset=offset))


def _present(store: ShardStore) -> Mapping[str, int]:
    """Return the live contents of a shard, with their offsets."""
    reader = ShardReader(store, time.monotonic)
    try:
        reader.reload()
        return {content_id: offset for view in reader.view.segments for content_id, offset in _live(view)}
    finally:
        reader.close()


def _live(view: SegmentView) -> Iterator[tuple[str, int]]:
    columns = view.segment.contents.select(["content_id", "offset"]).to_pydict()
    for row, content_id in enumerate(columns["content_id"]):
        if view.is_live(row):
            yield content_id, columns["offset"][row]


def _floors(view: ShardView, present: Mapping[str, int], last: int) -> Iterator[Change]:
    """Yield the floors of the served shard. The ids that are there already have theirs."""
    for one in find_floors(view):
        if one.content_id not in present:
            yield RemovedContent(one.content_id, min(one.offset, last), one.floor)


def _surplus(present: Mapping[str, int], wanted: Sequence[KeptContent], last: int) -> Iterator[Change]:
    """Remove what an earlier call has taken, and the served index has lost since."""
    for content_id in present.keys() - {one.content.content_id for one in wanted}:
        yield RemovedContent(content_id, last)


def _go_back(store: ShardStore) -> None:
    """Let the shard begin again at its first offset, with the contents that it has."""
    newest = read_newest(store)
    if newest is not None:
        again = replace(newest, next_offset=newest.first_offset)
        try:
            commit_restoration(store, Restoration(again, newest.generation, ()), writer_id=_WRITER)
        except GenerationTaken:
            raise IndexRefused(f"another process writes to {store.address}: try again after it") from None


def _in_parts(changes: Iterable[Change]) -> Iterator[list[Change]]:
    """Cut changes into commits. Those of one offset stay together, because a commit covers whole offsets."""
    part: list[Change] = []
    for change in changes:
        if len(part) >= CHANGES_OF_A_COMMIT and change.offset > part[-1].offset:
            yield part
            part = []
        part.append(change)
    if part:
        yield part


def _commit(writer: ShardWriter, next_offset: int, changes: Sequence[Change] = ()) -> None:
    writer.add(Delta(writer.next_offset, next_offset, changes))
    writer.commit()


def _offset_of(change: Change) -> int:
    return change.offset


def _encoded_content(one: KeptContent, prepared: Prepared, embeddings: Embeddings) -> EncodedContent:
    content = one.content
    is_truncated = isinstance(prepared, PreparedText) and prepared.is_truncated
    return EncodedContent(
        content_id=content.content_id,
        offset=content.offset,
        modality=content.modality,
        embeddings=embeddings,
        facts=replace(content.facts, is_truncated=is_truncated),
        version=content.version,
        thumbnail=one.thumbnail,
    )


def fetch_by_http(address: str) -> bytes:
    """Fetch a file. Raises `OSError`, also for one that is larger than any content may be."""
    request = urllib.request.Request(address, headers={"User-Agent": "cliptide reindex"})
    with urllib.request.urlopen(request, timeout=_FETCH_SECONDS) as answer:
        data: bytes = answer.read(MAX_FETCHED_BYTES + 1)
    if len(data) > MAX_FETCHED_BYTES:
        raise OSError(f"{address} has more than {MAX_FETCHED_BYTES} bytes")
    return data
