"""How often a byte of an upload is written until merging has come to rest."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.data import DIMENSION, draw_rows, draw_space
from clip_index.content import ContentFacts, Delta, EncodedContent
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.generations.history import manifest_path
from clip_index.generations.index_directory import IndexDescription, IndexDirectory
from clip_index.writing.shard_writer import ShardWriter

ROWS_A_COMMIT = 25
"""What a shard commits at once when 500 uploads a second are spread over four shards."""
_POLL_SECONDS = 0.002


@dataclass(slots=True)
class WrittenBytes:
    """Everything that a shard's writer wrote; `sealed` are the segments of the commits themselves."""

    sealed: int = 0
    merged: int = 0
    manifests: int = 0
    _segment_ids: set[str] = field(default_factory=set)

    @property
    def amplification(self) -> float:
        """Bytes written in all for each byte that a commit had to write."""
        return (self.sealed + self.merged + self.manifests) / self.sealed

    def count_new_segments(self, writer: ShardWriter) -> int:
        """Return the bytes of the segments that were not there at the last count."""
        new = [entry for entry in writer.manifest.segments if entry.segment_id not in self._segment_ids]
        self._segment_ids.update(entry.segment_id for entry in new)
        return sum(file.size_bytes for entry in new for file in entry.files.values())


def ingest(num_rows: int) -> WrittenBytes:
    """Commit so many rows to one shard, 25 at a time; merges are waited for, as a paced writer does."""
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
        writer.tend()
        written.merged += written.count_new_segments(writer)
        if not writer.merge_debt:
            return
        time.sleep(_POLL_SECONDS)


def _bytes_of_manifests(writer: ShardWriter) -> int:
    """All of them are still there: none is old enough to be collected."""
    paths = (manifest_path(writer.path, generation) for generation in range(1, writer.generation + 1))
    return sum(path.stat().st_size for path in paths)


def _take_over(root: Path) -> ShardWriter:
    fingerprint = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")
    description = IndexDescription("content-uploads", None, 1, "cliptide-main", fingerprint)
    index = IndexDirectory.create(root, "main", description)
    return ShardWriter.take_over(index, 0, writer_id="benchmark", first_offset=0)
