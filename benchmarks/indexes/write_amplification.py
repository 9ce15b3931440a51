"""How often each byte of an upload is written until no merge is left to do."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.data import DIMENSION, draw_rows, draw_space
from clip_index.content import ContentFacts, Delta, EncodedContent
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.generations.history import manifest_name
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.writing.shard_writer import ShardWriter

ROWS_A_COMMIT = 25
"""What a shard commits at once when 500 uploads a second are spread over four shards."""
_POLL_SECONDS = 0.002


@dataclass(slots=True)
class WrittenBytes:
    """The bytes that a shard's writer wrote. `sealed` are those of the segments that commits wrote."""

    sealed: int = 0
    merged: int = 0
    manifests: int = 0
    _segment_ids: set[str] = field(default_factory=set)

    @property
    def amplification(self) -> float:
        """Return all bytes written ÷ the bytes that commits had to write."""
        return (self.sealed + self.merged + self.manifests) / self.sealed

    def count_new_segments(self, writer: ShardWriter) -> int:
        """Return the bytes of the segments that did not exist at the last count."""
        new = [entry for entry in writer.manifest.segments if entry.segment_id not in self._segment_ids]
        self._segment_ids.update(entry.segment_id for entry in new)
        return sum(entry.size_bytes for entry in new)


def ingest(num_rows: int) -> WrittenBytes:
    """Commit rows to one shard, 25 at a time, and wait for merges, as a writer at a steady rate would."""
    rows = draw_rows(draw_space(1), "image", num_rows, seed=num_rows)
    written = WrittenBytes()
    with tempfile.TemporaryDirectory() as root:
        writer = _take_over(Path(root))
        for first in range(0, num_rows, ROWS_A_COMMIT):
            last = min(first + ROWS_A_COMMIT, num_rows)
            writer.add(
                Delta(
                    first,
                    last,
                    [
                        EncodedContent(
                            str(n),
                            n,
                            "image",
                            rows[n][None],
                            ContentFacts(source="benchmark", occurred_at_ms=n),
                        )
                        for n in range(first, last)
                    ],
                )
            )
            writer.commit()
            written.sealed += written.count_new_segments(writer)
            _merge(writer, written)
        written.manifests = _bytes_of_manifests(writer)
        writer.close()
    return written


def _merge(writer: ShardWriter, written: WrittenBytes) -> None:
    while True:
        writer.maintain()
        written.merged += written.count_new_segments(writer)
        if not writer.merge_debt:
            return
        time.sleep(_POLL_SECONDS)


def _bytes_of_manifests(writer: ShardWriter) -> int:
    """Return the bytes of all manifests. None is old enough to have been collected."""
    names = (manifest_name(generation) for generation in range(1, writer.generation + 1))
    return sum(writer.store.local_file(name).stat().st_size for name in names)


def _take_over(root: Path) -> ShardWriter:
    fingerprint = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")
    description = IndexDescription("content-uploads", None, 1, "cliptide-main", fingerprint)
    index = IndexDirectory.create(root, "main", description)
    return ShardWriter.take_over(index, 0, Claim("benchmark"))
