"""The indexes of the figure of growth, and the program that looks at one of them in a process of its own.

`python -m benchmarks.indexes.grown_index build ROOT ROWS FORM` lets the real writer commit the rows
of each shard in eight parts. Then its merge process makes one segment of them, whose lists have the form,
shard after shard. So the first merge finds as many rows as the index will have, as it does where shards grow
side by side, and chooses lists that suit so many. Rows are drawn part by part, because ten million do not fit
into memory. What a merge has replaced is deleted, because both together may not fit on the disk, and no index
is begun for which the disk has no room.
`… open ROOT` and `… own ROOT` print what a query service and a consumer need, as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from benchmarks.data import DIMENSION, NUM_PARTITIONS, draw_queries, draw_rows, draw_space
from benchmarks.processes.process_figures import anonymous_bytes
from clip_index.content import ContentFacts, Delta, Embeddings, EncodedContent, VectorForm
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.vectors.vectors import use_one_thread
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings

NUM_PARTS = 8
NUM_QUERIES = 40
SEED = 17
_COMMITTED_ROWS = 100
_K = 10
_MERGES_ALL = MergeSettings(merge_factor=NUM_PARTS, floor_entries=10**9, max_debt=1)
"""A debt of one is the greatest, so a merge has the priority of this process, which waits for it."""
_TIDYING = WriterSettings(retain_for_seconds=0, collect_every_seconds=0)
_ROW_BYTES: Mapping[VectorForm, int] = MappingProxyType({"fp16": 1_600, "sq8": 1_950})
"""What a merged row takes at most. One that is not merged takes 1,250 bytes."""
_SPARE_BYTES = 2 * 2**30
"""Left to others. A merge does not begin without 1 GiB more than it takes."""
_NUM_RETAINED = 3

Measured = Mapping[str, float]


def build(root: Path, num_rows: int, form: VectorForm) -> Measured:
    """Return what the merges took: CPU seconds of all, and the memory of the largest."""
    fingerprint = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")
    description = IndexDescription("content-uploads", None, NUM_PARTITIONS, "cliptide-main", fingerprint)
    index = IndexDirectory.create(root, "main", description)
    _need_room(root, num_rows, form)
    for partition in range(NUM_PARTITIONS):
        _commit_parts(index, partition, num_rows // NUM_PARTITIONS)
    for partition in range(NUM_PARTITIONS):
        _merge_parts(index, partition, form)
        sys.stderr.write(f"built shard {partition + 1} of {NUM_PARTITIONS} of {num_rows:,} rows\n")
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "merge_cpu_seconds": children.ru_utime + children.ru_stime,
        "merge_memory_mb": children.ru_maxrss / 1e3,
    }


def _commit_parts(index: IndexDirectory, partition: int, num_rows: int) -> None:
    space = draw_space(SEED)
    writer = _take_over(index, partition, WriterSettings(merge=_MERGES_ALL))
    for part in range(NUM_PARTS):
        _commit(writer, draw_rows(space, "image", num_rows // NUM_PARTS, SEED + 100 * partition + part))
    writer.close()


def _merge_parts(index: IndexDirectory, partition: int, form: VectorForm) -> None:
    """Merge the parts of a shard, and delete them."""
    writer = _take_over(index, partition, WriterSettings(merge=replace(_MERGES_ALL, vectors=form)))
    writer.maintain()
    while len(writer.manifest.segments) > 1:
        time.sleep(0.05)
        writer.maintain()
    writer.close()
    for _ in range(_NUM_RETAINED):  # each is a generation, and the last few ones keep their files
        writer = _take_over(index, partition, _TIDYING)
        writer.maintain()
        writer.close()


def _need_room(root: Path, num_rows: int, form: VectorForm) -> None:
    """Exit if the disk has not the room for all merged rows, and for the parts of one shard beside them."""
    num_bytes = _ROW_BYTES[form] * (num_rows + num_rows // NUM_PARTITIONS)
    needed, free = (num_bytes + _SPARE_BYTES) / 1e9, shutil.disk_usage(root).free / 1e9
    if needed > free:
        sys.exit(f"the index needs {needed:.1f} GB of the disk, where {free:.1f} GB are free")


def open_as_query_service(root: Path) -> Measured:
    """Open the index and ask it; return CPU milliseconds of both and the memory that no file backs."""
    use_one_thread()
    before, began = anonymous_bytes(os.getpid()), time.process_time()
    reader = IndexReader(root)
    reader.reload()
    opened = time.process_time() - began
    assert reader.searcher is not None
    queries = draw_queries(draw_space(SEED), "text", NUM_QUERIES, SEED)
    for _ in range(2):  # the first round touches what is read from then on
        began = time.thread_time()
        for query in queries:
            reader.searcher.search(query[None], k=_K, modality="image")
        asked = time.thread_time() - began
    return {
        "open_cpu_ms": 1e3 * opened,
        "query_cpu_ms": 1e3 * asked / NUM_QUERIES,
        "memory_mb": (anonymous_bytes(os.getpid()) - before) / 1e6,
    }


def own_as_consumer(root: Path) -> Measured:
    """Take all shards over, commit to one; return CPU milliseconds of both, and of a reader's reload."""
    index = IndexDirectory.open(root)
    reader = IndexReader(root)
    reader.reload()
    began = time.process_time()
    writers = [_take_over(index, partition, WriterSettings()) for partition in range(NUM_PARTITIONS)]
    took_over = time.process_time() - began
    reader.reload()
    rows = draw_rows(draw_space(SEED), "image", _COMMITTED_ROWS, SEED + 1)
    committed, reloaded = [], []
    for _ in range(5):
        began = time.process_time()
        _commit(writers[0], rows)
        committed.append(time.process_time() - began)
        began = time.process_time()
        reader.reload()
        reloaded.append(time.process_time() - began)
    for writer in writers:
        writer.close()
    middle = len(committed) // 2
    return {
        "takeover_cpu_ms": 1e3 * took_over,
        "commit_cpu_ms": 1e3 * sorted(committed)[middle],
        "reload_cpu_ms": 1e3 * sorted(reloaded)[middle],
    }


def _take_over(index: IndexDirectory, partition: int, settings: WriterSettings) -> ShardWriter:
    return ShardWriter.take_over(index, partition, Claim("benchmark"), settings=settings)


def _commit(writer: ShardWriter, rows: Embeddings) -> None:
    first = writer.next_offset
    changes = [_content(writer.partition, first + n, row) for n, row in enumerate(rows)]
    writer.add(Delta(first, first + len(changes), changes))
    writer.commit()


def _content(partition: int, offset: int, row: Embeddings) -> EncodedContent:
    facts = ContentFacts(source="benchmark", occurred_at_ms=1_700_000_000_000 + offset)
    return EncodedContent(f"{partition}-{offset}", offset, "image", row[None], facts)


def form_of(text: str) -> VectorForm:
    return "sq8" if text == "sq8" else "fp16"


def _run(program: str, root: Path, arguments: list[str]) -> Measured:
    if program == "build":
        return build(root, int(arguments[0]), form_of(arguments[1]))
    return open_as_query_service(root) if program == "open" else own_as_consumer(root)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_run(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])) + "\n")
