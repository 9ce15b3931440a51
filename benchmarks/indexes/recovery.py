"""`python -m benchmarks.indexes.recovery ROOT`: do what a consumer does with its index after a crash.

It takes over every shard, which verifies and opens all files of the shard, and commits one
content to each. The caller times the whole process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.data import DIMENSION, NUM_PARTITIONS, draw_rows, draw_space
from clip_index.content import ContentFacts, Delta, Embeddings, EncodedContent
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.writing.shard_writer import ShardWriter


def build_index(root: Path, num_rows: int) -> None:
    """Build four shards, each of one large segment and three small ones."""
    fingerprint = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")
    description = IndexDescription("content-uploads", None, NUM_PARTITIONS, "cliptide-main", fingerprint)
    index = IndexDirectory.create(root, "main", description)
    num_small = num_rows // NUM_PARTITIONS // 20
    vectors = draw_rows(draw_space(1), "image", num_rows // NUM_PARTITIONS, seed=num_rows)
    for partition in range(NUM_PARTITIONS):
        writer = _take_over(index, partition)
        for size in (len(vectors) - 3 * num_small, *[num_small] * 3):
            first = writer.next_offset
            _commit(writer, [_content(first + i, vectors[first + i]) for i in range(size)])
        writer.close()


def recover_index(root: Path) -> None:
    index = IndexDirectory.open(root)
    vector = draw_rows(draw_space(1), "image", 1, seed=1)[0]
    for partition in range(index.description.num_partitions):
        writer = _take_over(index, partition)
        _commit(writer, [_content(writer.next_offset, vector)])
        writer.close()


def _take_over(index: IndexDirectory, partition: int) -> ShardWriter:
    return ShardWriter.take_over(index, partition, Claim("benchmark"))


def _commit(writer: ShardWriter, contents: list[EncodedContent]) -> None:
    first = writer.next_offset
    writer.add(Delta(first, first + len(contents), contents))
    writer.commit()


def _content(offset: int, vector: Embeddings) -> EncodedContent:
    return EncodedContent(
        str(offset), offset, "image", vector[None], ContentFacts(source="benchmark", occurred_at_ms=offset)
    )


if __name__ == "__main__":
    recover_index(Path(sys.argv[1]))
