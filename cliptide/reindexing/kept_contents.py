"""Contents that the served index holds and the log does not any more, and how they come into another index.

A row keeps a text whole, and of a fetched picture the digest. So a text is taken from the row, and a picture
from its link if the bytes there still have the digest. What remains is lost to the other index.
"""

from __future__ import annotations

import hashlib
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from clip_index.content import (
    LONG_FACTS,
    Change,
    Delta,
    Embeddings,
    EncodedContent,
    RemovedContent,
    StoredContent,
)
from clip_index.encoder.protocol import Encoder, Prepared, PreparedText
from clip_index.errors import BadContent, IndexRefused
from clip_index.generations.history import read_newest
from clip_index.generations.index_directory import IndexDirectory
from clip_index.generations.takeover import Claim
from clip_index.reading.searcher import Searcher
from clip_index.reading.snapshot import ShardView
from clip_index.segments.columns import RememberedDelete
from clip_index.writing.shard_writer import ShardWriter

Source: TypeAlias = Literal["text", "link", "lost"]
Fetch: TypeAlias = Callable[[str], bytes]
MAX_FETCHED_BYTES = 64 * 2**20
_FETCH_SECONDS = 20.0
_BATCH = 32


@dataclass(frozen=True, slots=True)
class KeptContent:
    """A live content whose record the log does not hold any more; `floor` is its id's greatest version."""

    shard: str
    content: StoredContent
    floor: int | None
    thumbnail: bytes | None

    @property
    def source(self) -> Source:
        """Where its content can be taken from."""
        facts = self.content.facts
        if self.content.modality == "text":
            return "text" if facts.text and not facts.is_truncated else "lost"
        is_web = facts.link is not None and facts.link.startswith(("http://", "https://"))
        return "link" if is_web and facts.sha256 is not None else "lost"


def find_kept(searcher: Searcher, log_starts: Mapping[str, int]) -> Iterator[KeptContent]:
    """Yield the live contents with an offset below their log's start, in the order of a shard's offsets."""
    for view in searcher.shard_views:
        log_start = log_starts[view.name]
        if view.snapshot.first_offset < log_start and view.snapshot.generation:
            found = [one for one in _live_of(view) if one.content.offset < log_start]
            yield from sorted(found, key=lambda one: one.content.offset)


def _live_of(view: ShardView) -> Iterator[KeptContent]:
    for segment in view.segments:
        floors = segment.segment.contents.column("floor")
        for row in segment.eligible_rows(None).nonzero()[0].tolist():
            content = segment.segment.read(row, LONG_FACTS)
            yield KeptContent(view.name, content, floors[row].as_py(), segment.segment.thumbnail(row))


def find_deletes(searcher: Searcher, log_starts: Mapping[str, int]) -> Mapping[str, list[RememberedDelete]]:
    """Return the deletes of versioned ids that the log does not hold any more, by shard.

    They must be known to the other index too, so that a late older version stays deleted there.
    """
    return {
        view.name: [
            RememberedDelete(**row)
            for segment in view.segments
            if segment.segment.deletes is not None
            for row in segment.segment.deletes.select(["content_id", "offset", "floor"]).to_pylist()
            if row["offset"] < log_starts[view.name]
        ]
        for view in searcher.shard_views
    }


@dataclass(slots=True)
class Seeding:
    """Writes kept contents into a new index, before its consumer begins there.

    Each shard gets one generation that covers the log up to its present start, so the consumer goes on
    where the log begins. Offsets, versions and facts are those of the served index. `lost` collects what
    could not be taken, with the reason.
    """

    index: IndexDirectory
    encoder: Encoder
    fetch: Fetch | None = None
    lost: list[tuple[KeptContent, str]] = field(default_factory=list)
    num_taken: int = 0

    def write(self, served: Searcher, log_starts: Mapping[str, int]) -> None:
        """Seed each shard whose first records the log has lost; `IndexRefused` if a consumer was there."""
        deletes = find_deletes(served, log_starts)
        kept = defaultdict(list)
        for one in find_kept(served, log_starts):
            kept[one.shard].append(one)
        for partition in range(self.index.description.num_partitions):
            shard = self.index.shard_name(partition)
            first_offset, log_start = served.shards[shard].first_offset, log_starts[shard]
            if first_offset < log_start:
                changes = [*_removals(deletes[shard]), *self._encoded(kept[shard])]
                changes.sort(key=lambda change: change.offset)  # stable: a floor stays before its content
                self._commit(partition, Delta(first_offset, log_start, changes))

    def _commit(self, partition: int, delta: Delta) -> None:
        if read_newest(self.index.shard_store(partition)) is not None:
            raise IndexRefused(
                f"the index {self.index.index_id} is being built already: kept contents can only be taken "
                "before its consumer begins"
            )
        writer = ShardWriter.take_over(self.index, partition, Claim("reindex", delta.from_offset))
        try:
            writer.add(delta)
            writer.commit()
        finally:
            writer.close()

    def _encoded(self, kept: Sequence[KeptContent]) -> Iterator[Change]:
        for start in range(0, len(kept), _BATCH):
            prepared = [(one, self._prepare(one)) for one in kept[start : start + _BATCH]]
            good = [(one, item) for one, item in prepared if item is not None]
            rows = self.encoder.encode([item for _, item in good]) if good else []
            for (one, item), embeddings in zip(good, rows, strict=True):
                self.num_taken += 1
                yield from _changes_of(one, item, embeddings)

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


def _removals(deletes: Sequence[RememberedDelete]) -> Iterator[Change]:
    for one in deletes:
        yield RemovedContent(one.content_id, one.offset, one.floor)


def _changes_of(one: KeptContent, prepared: Prepared, embeddings: Embeddings) -> Iterator[Change]:
    """Yield the content, and before it its id's floor if a version came before a content without one."""
    content = one.content
    if one.floor is not None and content.version != one.floor:
        yield RemovedContent(content.content_id, content.offset, one.floor)
    is_truncated = isinstance(prepared, PreparedText) and prepared.is_truncated
    yield EncodedContent(
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
