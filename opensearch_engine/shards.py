"""The write side: each owner of a partition folds its events into documents, and says how far it is.

A commit is three steps: the documents in bulk, a refresh, the progress. A process that dies between
them leaves documents that are ahead of the progress; the next owner reads the same events again, and
each document whose offset is not below an event's is left as it is. So the progress is never ahead of
the contents, and a replay or a writer that lost its partition changes nothing: a document is written
with its event's offset as its version, and OpenSearch takes no smaller version over a greater one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from clip_index.content import Change, Delta, EncodedContent, PatchedContent, RemovedContent
from clip_index.errors import DeltaMismatch, Fenced
from clip_index.fold import fold, takes_patch
from clip_index.generations.traces import TracedRecord
from clip_index.generations.watermark import Watermark
from clip_index.patching import patched_facts
from clip_index.writing.buffer import num_bytes_of
from clip_index.writing.erasure import NOTHING_TO_ERASE
from opensearch_engine.connection import Json
from opensearch_engine.documents import (
    UNKNOWN,
    Document,
    StoredState,
    document_from_change,
    document_id,
    encoded_content,
    state_from_source,
)
from opensearch_engine.errors import EngineConflict
from opensearch_engine.index import OpenSearchIndex
from opensearch_engine.progress import (
    Progress,
    ProgressDocument,
    read_watermark,
    write_traces,
    write_watermark,
)

_BULK_BYTES = 4 * 1024 * 1024
_READ_TOGETHER = 500
_LOOK_EVERY_SECONDS = 5.0


@dataclass(slots=True)
class _Buffered:
    """What is known of an id: its state, and the last event that applied and is not yet stored."""

    offset: int
    stored: StoredState
    change: Change | None = None


class OpenSearchShardWriter:
    """Implements `ShardWriter` of the consumer. Owned by one thread."""

    merge_debt = 0
    erasure_backlog = NOTHING_TO_ERASE

    def __init__(
        self, index: OpenSearchIndex, document: ProgressDocument, own: Progress, clock: Callable[[], float]
    ) -> None:
        self.partition = document.partition
        self.shard = index.shard_name(document.partition)
        self._index = index
        self._document = document
        self._own = own
        self._clock = clock
        self._next_offset = own.next_offset
        self._buffer: dict[str, _Buffered] = {}
        self._looked_at = clock()
        self.read_bytes = 0

    @property
    def epoch(self) -> int:
        return self._own.epoch

    @property
    def generation(self) -> int:
        return self._own.generation

    @property
    def next_offset(self) -> int:
        return self._next_offset

    @property
    def committed_next_offset(self) -> int:
        return self._own.next_offset

    def add(self, delta: Delta) -> None:
        """Fold a delta into the buffer. If OpenSearch does not answer, nothing has been added."""
        if delta.from_offset != self._next_offset:
            raise DeltaMismatch(self.shard, self._next_offset, delta.from_offset)
        for content_id, stored in self._read_states(delta.changes).items():
            self._buffer[content_id] = _Buffered(stored.offset, stored)
        for change in delta.changes:
            self._apply(change)
        self._next_offset = delta.next_offset

    def commit(self) -> int:
        if self._next_offset == self._own.next_offset:
            return self._own.next_offset
        # Step 1: every document, on the disk of every copy.
        lines = list(self._bulk_lines())
        for chunk in _chunks(lines):
            self._write(chunk)
        # Step 2: what is written is searchable.
        if lines:
            self._refresh()
        # Step 3: the progress.
        committed = replace(
            self._own,
            generation=self._own.generation + 1,
            nonce=uuid4().hex,
            next_offset=self._next_offset,
        )
        self._document.write_as_owner(committed)
        self._own = committed
        self._buffer, self.read_bytes = {}, 0
        return committed.next_offset

    def maintain(self) -> None:
        """Look now and then whether another writer owns the partition: `Fenced`."""
        now = self._clock()
        if 0 <= now - self._looked_at < _LOOK_EVERY_SECONDS:
            return
        self._looked_at = now
        self._document.check_owner(self._document.read(), self._own)

    def renew_watermark(self, watermark_ms: int) -> None:
        watermark = Watermark(watermark_ms, self.committed_next_offset, self.epoch)
        write_watermark(self._index, self.partition, watermark)

    def publish_traces(self, traces: Sequence[TracedRecord]) -> None:
        write_traces(self._index, self.partition, traces)

    def close(self) -> None:
        """What was added and not committed is still in the log."""
        self._buffer = {}

    def _read_states(self, changes: Iterable[Change]) -> dict[str, StoredState]:
        """Return what OpenSearch holds of the ids that are not in the buffer."""
        ids = list(dict.fromkeys(c.content_id for c in changes if c.content_id not in self._buffer))
        states: dict[str, StoredState] = {}
        for start in range(0, len(ids), _READ_TOGETHER):
            some = ids[start : start + _READ_TOGETHER]
            found = self._index.connection.read_documents(
                self._index.contents,
                [document_id(self.partition, content_id) for content_id in some],
                _source_includes="offset,floor,dead",
            )
            for content_id, document in zip(some, found, strict=True):
                states[content_id] = state_from_source(document["_source"]) if document["found"] else UNKNOWN
        return states

    def _apply(self, change: Change) -> None:
        known = self._buffer[change.content_id]
        if change.offset <= known.offset:
            return  # stored already: the log is read again
        if isinstance(change, PatchedContent):
            self._patch(change, known)
            return
        is_delete = isinstance(change, RemovedContent)
        state = fold(known.stored.state, version=change.version, is_delete=is_delete)
        if state is not None:
            stored = StoredState(change.offset, state)
            self._buffer[change.content_id] = _Buffered(change.offset, stored, change)

    def _patch(self, patch: PatchedContent, known: _Buffered) -> None:
        """Write the whole content again with other facts, because a part cannot be written by a version."""
        if not takes_patch(known.stored.state):
            return
        content = known.change or self._read_content(patch.content_id)
        if content is None:
            return
        assert isinstance(content, EncodedContent)  # its id is live
        patched = replace(content, offset=patch.offset, facts=patched_facts(content.facts, patch))
        stored = StoredState(patch.offset, known.stored.state)
        self._buffer[patch.content_id] = _Buffered(patch.offset, stored, patched)

    def _read_content(self, content_id: str) -> EncodedContent | None:
        """Read a live content. If it is none any more, another writer owns the partition: `Fenced`."""
        id_ = document_id(self.partition, content_id)
        [found] = self._index.connection.read_documents(self._index.contents, [id_])
        if not found["found"] or found["_source"]["dead"]:
            self._document.check_owner(self._document.read(), self._own)
            return None
        content = encoded_content(Document(id_, found["_source"]))
        self.read_bytes += num_bytes_of(content)
        return content

    def _bulk_lines(self) -> Iterator[tuple[Json, Json]]:
        for content_id, known in self._buffer.items():
            if known.change is not None:
                document = document_from_change(known.change, known.stored.state, self.shard)
                action = {
                    "_id": document_id(self.partition, content_id),
                    "version": known.offset + 1,
                    "version_type": "external_gte",
                }
                yield {"index": action}, document

    def _write(self, chunk: Sequence[tuple[Json, Json]]) -> None:
        connection = self._index.connection
        lines = (line for pair in chunk for line in pair)
        answer = connection.ask_lines(f"/{self._index.contents}/_bulk", lines, require_alias=True)
        for item in answer["items"] if answer["errors"] else ():
            result = item["index"]
            if "error" in result and result["status"] != 409:  # a greater version is there already
                raise connection.error_of_part("a document was not stored", result["status"], result["error"])

    def _refresh(self) -> None:
        connection = self._index.connection
        shards = connection.ask("POST", f"/{self._index.contents}/_refresh")["_shards"]
        if shards["failed"]:
            raise connection.error_of_part("a refresh failed", 503, shards["failures"][0].get("reason", {}))


@dataclass(frozen=True, slots=True)
class OpenSearchShards:
    """Implements `Shards` of the consumer."""

    index: OpenSearchIndex
    writer_id: str
    clock: Callable[[], float] = time.monotonic

    def become_owner(
        self, partition: int, *, first_offset: int, own_epoch: int | None
    ) -> OpenSearchShardWriter:
        document = ProgressDocument(self.index, partition)
        while True:
            found = document.read()
            self._check_own(partition, found, own_epoch)
            own = self._successor(found, first_offset)
            try:
                document.write(own)
            except EngineConflict:
                continue  # another writer was first: read what it wrote, and take over from it
            return OpenSearchShardWriter(self.index, document, own, self.clock)

    def read_watermark(self, partition: int) -> Watermark | None:
        return read_watermark(self.index, partition)

    def close(self) -> None:
        self.index.connection.close()

    def _check_own(self, partition: int, found: Progress | None, own_epoch: int | None) -> None:
        if found is None or own_epoch is None:
            return
        if found.epoch > own_epoch and found.writer_id != self.writer_id:
            raise Fenced(self.index.shard_name(partition), own_epoch, found.epoch)

    def _successor(self, found: Progress | None, first_offset: int) -> Progress:
        nonce = uuid4().hex
        if found is None:
            return Progress(1, 1, self.writer_id, nonce, first_offset, first_offset)
        return replace(
            found,
            generation=found.generation + 1,
            epoch=found.epoch + 1,
            writer_id=self.writer_id,
            nonce=nonce,
        )


def _chunks(lines: Sequence[tuple[Json, Json]]) -> Iterator[list[tuple[Json, Json]]]:
    """Split documents into requests of a bounded size."""
    chunk: list[tuple[Json, Json]] = []
    num_bytes = 0
    for pair in lines:
        size = _size(pair[1])
        if chunk and num_bytes + size > _BULK_BYTES:
            yield chunk
            chunk, num_bytes = [], 0
        chunk.append(pair)
        num_bytes += size
    if chunk:
        yield chunk


def _size(document: Json) -> int:
    """About how many bytes a document has on the wire."""
    numbers = sum(len(row) for one in document.get("vectors", ()) for row in one.values())
    texts = sum(len(value) for value in document.values() if isinstance(value, str))
    return 12 * numbers + 2 * texts + 1000
