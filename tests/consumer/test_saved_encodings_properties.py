"""An index that takes embeddings from equal bytes equals one that encodes every upload."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from clip_index.content import ContentFacts, Delta, Derived, EncodedContent, RemovedContent
from clip_index.encoder.protocol import Prepared
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from consumer.saved_encodings import ContentDigests, NothingStored, PreparedContent, SavedEncodings
from consumer.telemetry.metrics import Metrics
from fakes.hash_encoder import HashEncoder, draw_picture
from fakes.inline_merges import InlineLanes
from fakes.shards import create_index, take_over

ENCODER = HashEncoder(max_crops=3)
EAGER_MERGES = WriterSettings(merge=MergeSettings(merge_factor=2, floor_entries=2, max_dead_share=0.2))
BODIES: tuple[str | bytes, ...] = (
    "a text",
    "another text",
    " ".join(f"w{number % 75}" for number in range(300)),  # several windows, some with equal embeddings
    " ".join(f"w{number % 75}" for number in range(150)),  # its first windows
    draw_picture(1),
    draw_picture(2, size=(96, 24)),  # three crops
)


@dataclass(frozen=True)
class Event:
    """One event of the log: `body` is a number of `BODIES`; None deletes."""

    content_id: str
    body: int | None


events = st.builds(
    Event, st.sampled_from(["a", "b", "c", "d", "e"]), st.none() | st.integers(0, len(BODIES) - 1)
)
steps = st.sampled_from(
    ["go on", "add", "commit", "crash", "maintain", "hold merges", "release merges", "take over"]
)


@dataclass
class Encoding:
    """Makes contents of events as the consumer does, and counts what it encodes."""

    saved: SavedEncodings
    num_encoded: int = 0

    def content(self, event: Event, offset: int) -> EncodedContent | RemovedContent:
        if event.body is None:
            return RemovedContent(event.content_id, offset)
        body = BODIES[event.body]
        data = body.encode() if isinstance(body, str) else body
        modality = "text" if isinstance(body, str) else "image"
        digest = self.saved.digest_of(modality, hashlib.sha256(data).digest())
        derived = self.saved.find(0, digest) or self._encode(digest, body)
        facts = ContentFacts(source="shop", occurred_at_ms=0, is_truncated=derived.is_truncated)
        return EncodedContent(
            event.content_id,
            offset,
            modality,
            derived.embeddings,
            facts,
            thumbnail=derived.thumbnail,
            digest=digest,
        )

    def _encode(self, digest: bytes, body: str | bytes) -> Derived:
        content = self.saved.prepare(digest, lambda: _prepared(body))
        [embeddings] = self.saved.encode([(digest, content)], self._count)
        return Derived(embeddings, content.thumbnail, content.is_truncated)

    def _count(self, prepared: Sequence[Prepared]) -> list:
        self.num_encoded += len(prepared)
        return ENCODER.encode(prepared)


def _prepared(body: str | bytes) -> PreparedContent:
    if isinstance(body, str):
        return PreparedContent(ENCODER.prepare_text(body))
    return PreparedContent(ENCODER.prepare_image(body), thumbnail=hashlib.md5(body).digest())


def encoding(stored: object) -> Encoding:
    digests = ContentDigests(ENCODER.fingerprint, "")
    return Encoding(SavedEncodings(digests, stored, Metrics().encodings_saved))  # type: ignore[arg-type]


@dataclass
class OneWriter:
    """Implements `StoredContents` with the writer of one shard."""

    writer: ShardWriter

    def find_derived(self, partition: int, digest: bytes) -> Derived | None:
        return self.writer.find_derived(digest)


@dataclass
class Consumer:
    """Writes a log into an index, crashed, merged and replaced as the steps say."""

    index: IndexDirectory
    lanes: InlineLanes = field(default_factory=InlineLanes)
    num_encoded: int = 0

    def run(self, log: list[Event], plan: list[str]) -> None:
        self.lanes.release(is_released=True)
        self._begin()
        position = 0
        while self.next_offset < len(log):
            self.pending.append(self.encoding.content(log[self.next_offset], self.next_offset))
            self.next_offset += 1
            self._do(plan[position % len(plan)] if plan and position < 6 * len(log) else "go on")
            position += 1
        self._add()
        self.writer.commit()
        self.num_encoded += self.encoding.num_encoded

    def _do(self, step: str) -> None:
        if step == "take over":
            self._add()
            self.writer.commit()
        if step in ("crash", "take over"):
            self.num_encoded += self.encoding.num_encoded
            self._begin()
        elif step != "go on":
            self._add()
        if step == "commit":
            self.writer.commit()
        elif step.endswith("merges"):
            self.lanes.release(is_released=step.startswith("release"))
        if step in ("maintain", "hold merges", "release merges"):
            self.writer.maintain()

    def _begin(self) -> None:
        """Begin as a new process does: with what the disk has."""
        for worker in self.lanes.workers:
            worker.kill()
        self.writer = take_over(self.index, settings=EAGER_MERGES, lanes=self.lanes)
        self.encoding = encoding(OneWriter(self.writer))
        self.pending: list[EncodedContent | RemovedContent] = []
        self.next_offset = self.writer.next_offset

    def _add(self) -> None:
        self.writer.add(Delta(self.writer.next_offset, self.next_offset, self.pending))
        self.pending = []


def what_is_indexed(index: IndexDirectory) -> dict[str, object]:
    """Return everything that follows from bytes: embeddings bit by bit, as a set, and the rest."""
    reader = IndexReader(index.path.parent.parent)
    reader.reload()
    assert reader.searcher is not None
    found = {}
    for content_id in ("a", "b", "c", "d", "e"):
        location = reader.searcher.find(content_id)
        if location is not None:
            stored = reader.searcher.read(location)
            rows = sorted(row.tobytes() for row in reader.searcher.embeddings(location))
            thumbnail = reader.searcher.thumbnail(location)
            found[content_id] = (rows, thumbnail, stored.modality, stored.offset, stored.facts)
    return found


@settings(max_examples=60, deadline=None)
@given(st.lists(events, min_size=1, max_size=40), st.lists(steps, max_size=12))
def test_the_index_is_the_same_with_and_without_saved_encodings(log: list[Event], plan: list[str]) -> None:
    with tempfile.TemporaryDirectory() as saving, tempfile.TemporaryDirectory() as encoding_all:
        index = create_index(Path(saving), fingerprint=ENCODER.fingerprint)
        Consumer(index).run(log, plan)
        plain = create_index(Path(encoding_all), fingerprint=ENCODER.fingerprint)
        writer = take_over(plain)
        changes = [encoding(NothingStored()).content(event, offset) for offset, event in enumerate(log)]
        writer.add(Delta(0, len(log), changes))
        writer.commit()
        assert what_is_indexed(index) == what_is_indexed(plain)


@settings(max_examples=20, deadline=None)
@given(st.lists(events, min_size=1, max_size=40))
def test_without_a_delete_each_content_is_encoded_once_for_ever(log: list[Event]) -> None:
    log = [event for event in log if event.body is not None] * 2
    with tempfile.TemporaryDirectory() as root:
        consumer = Consumer(create_index(Path(root), fingerprint=ENCODER.fingerprint))
        kept = [Event(f"{event.content_id}{at}", event.body) for at, event in enumerate(log)]
        consumer.run(kept, ["take over"])
        assert consumer.num_encoded == len({event.body for event in log})
