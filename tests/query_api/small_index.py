"""A real index on disk that a test grows commit by commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from clip_index.content import (
    Change,
    ContentFacts,
    Delta,
    Embeddings,
    EncodedContent,
    MetadataValue,
    Modality,
    RemovedContent,
)
from clip_index.encoder.protocol import Encoder
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.writing.shard_writer import ShardWriter
from fakes.hash_encoder import HashEncoder
from fakes.shards import with_facts

TOPIC = "content-uploads"
OCCURRED_AT_MS = 1_700_000_000_000  # 2023-11-14T22:13:20Z


class SmallIndex:
    """Nothing exists until `create` (or `open`, of a copy); each `commit` is one generation of one shard."""

    def __init__(
        self, root: Path, *, encoder: Encoder | None = None, num_partitions: int = 2, index_id: str = "main"
    ) -> None:
        self.root = root
        self.encoder = encoder or HashEncoder()
        self._num_partitions = num_partitions
        self._index_id = index_id
        self._writers: dict[int, ShardWriter] = {}

    def create(self) -> SmallIndex:
        fingerprint = self.encoder.fingerprint
        group_id = f"cliptide-{self._index_id}"
        description = IndexDescription(TOPIC, None, self._num_partitions, group_id, fingerprint)
        self._directory = IndexDirectory.create(self.root, self._index_id, description)
        return self

    def open(self) -> SmallIndex:
        self._directory = IndexDirectory.open(self.root)
        return self

    def open_existing(self, index_id: str) -> SmallIndex:
        """Open one of several indexes of the root."""
        self._directory = IndexDirectory.open(self.root, index_id)
        return self

    def open_reader(self, encoder: Encoder | None = None) -> IndexReader:
        return IndexReader(self.root, fingerprint=(encoder or self.encoder).fingerprint)

    def text(
        self,
        content_id: str,
        text: str,
        *,
        owner_id: str | None = None,
        version: int | None = None,
        metadata: Mapping[str, MetadataValue] | None = None,
    ) -> EncodedContent:
        [rows] = self.encoder.encode([self.encoder.prepare_text(text)])
        content = _content(content_id, "text", rows)
        described = with_facts(content, text=text, owner_id=owner_id, metadata=metadata or {})
        return replace(described, version=version)

    def image(
        self, content_id: str, picture: bytes, *, link: str | None = None, thumbnail: bytes | None = None
    ) -> EncodedContent:
        [rows] = self.encoder.encode([self.encoder.prepare_image(picture)])
        return replace(with_facts(_content(content_id, "image", rows), link=link), thumbnail=thumbnail)

    def removal(self, content_id: str) -> RemovedContent:
        return RemovedContent(content_id, offset=0)

    def commit(self, partition: int, *changes: Change, watermark_ms: int | None = None) -> int:
        """Give the changes the next offsets of a partition, commit them, return the next offset."""
        writer = self._writer(partition)
        start = writer.next_offset
        placed = [replace(change, offset=start + position) for position, change in enumerate(changes)]
        writer.add(Delta(start, start + len(placed), placed))
        next_offset = writer.commit()
        if watermark_ms is not None:
            writer.renew_watermark(watermark_ms)
        return next_offset

    def generation(self, partition: int) -> int:
        """The generation that the partition's writer has committed last."""
        return self._writer(partition).generation

    def newest_segment(self, partition: int) -> Path:
        """The file of the segment that was written last."""
        segments = (self._directory.shard_path(partition) / "segments").iterdir()
        return max(segments, key=lambda path: path.stat().st_mtime_ns)

    def _writer(self, partition: int) -> ShardWriter:
        if partition not in self._writers:
            self._writers[partition] = ShardWriter.take_over(self._directory, partition, Claim("test"))
        return self._writers[partition]


def _content(content_id: str, modality: Modality, rows: Embeddings) -> EncodedContent:
    facts = ContentFacts(source="shop", occurred_at_ms=OCCURRED_AT_MS)
    return EncodedContent(content_id, 0, modality, rows, facts)
