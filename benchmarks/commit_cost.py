"""The time of a commit to an index of 200,000 rows, against one of 20,000."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.data import DIMENSION, NUM_PARTITIONS, draw_rows, draw_space
from benchmarks.figure import MIN_ROUNDS, Figure, interleaved, median_ratio
from clip_index.content import Change, ContentFacts, Delta, EncodedContent, RemovedContent
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.vectors.vector_file import write_fastest
from clip_index.writing.shard_writer import ShardWriter, WriterSettings

NAME = "commit_cost"
TARGET = 1.3
_NUM_NEW, _NUM_UPDATES, _NUM_DELETES = 85, 10, 5


def measure(*, quick: bool) -> Figure:
    """Time commits of 100 changes (85 new contents, 10 updates, 5 deletes), look-ups included."""
    sizes = (2_000, 20_000) if quick else (20_000, 200_000)
    rounds = 3 if quick else 3 * MIN_ROUNDS
    with ExitStack() as stack:
        roots = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in sizes]
        loops = [stack.enter_context(CommitLoop(s, root)) for s, root in zip(sizes, roots, strict=True)]
        commits = [loop.commit_once for loop in loops]
        small, large = interleaved(rounds, *commits, num_warm_ups=3)
    ratio = median_ratio(large, small)
    milliseconds = [float(np.median(times)) * 1000 for times in (small, large)]
    rows = [("rows", "median ms a commit")]
    rows += [(f"{size:,}", f"{ms:.1f}") for size, ms in zip(sizes, milliseconds, strict=True)]
    return Figure(
        NAME,
        round(ratio.median, 3),
        f"≤ {TARGET}",
        ratio.median <= TARGET,
        {"ratio": ratio.as_dict(), "rows": sizes, "median_ms": [round(ms, 2) for ms in milliseconds]},
        [*rows, ("ratio", str(ratio))],
    )


class CommitLoop:
    """Commits to an index of `num_rows` rows in four shards, with segments as ingestion leaves them."""

    def __init__(self, num_rows: int, root: Path) -> None:
        self._num_rows = num_rows
        self._root = root
        self._random = np.random.default_rng(num_rows)
        self._vectors = draw_rows(draw_space(1), "image", num_rows + 200 * 95, seed=num_rows)
        self._num_used = 0
        self._shard = 0

    def __enter__(self) -> CommitLoop:
        index = IndexDirectory.create(self._root, "main", _description())
        settings = WriterSettings(write_sealed=write_fastest)  # large segments as merges write them
        self._writers = [
            ShardWriter.take_over(index, p, Claim("benchmark"), settings=settings)
            for p in range(NUM_PARTITIONS)
        ]
        for writer in self._writers:
            for size in _segment_sizes(self._num_rows // NUM_PARTITIONS):
                _add(writer, [self._new(writer) for _ in range(size)])
                writer.commit()
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers:
            writer.close()

    def commit_once(self) -> None:
        """Commit 100 changes to one shard; the shards take turns."""
        self._shard = (self._shard + 1) % NUM_PARTITIONS
        writer = self._writers[self._shard]
        changes: list[Callable[[int], Change]] = [self._new(writer) for _ in range(_NUM_NEW)]
        known = self._random.integers(0, self._num_rows // NUM_PARTITIONS, _NUM_UPDATES + _NUM_DELETES)
        changes += [self._update(writer, int(i)) for i in known[:_NUM_UPDATES]]
        changes += [_removal(writer, int(i)) for i in known[_NUM_UPDATES:]]
        _add(writer, changes)
        writer.commit()

    def _new(self, writer: ShardWriter) -> Callable[[int], Change]:
        return self._content(lambda offset: f"{writer.partition}-{offset}")

    def _update(self, writer: ShardWriter, number: int) -> Callable[[int], Change]:
        return self._content(lambda _: f"{writer.partition}-{number}")

    def _content(self, content_id: Callable[[int], str]) -> Callable[[int], Change]:
        vector = self._vectors[self._num_used % len(self._vectors)]
        self._num_used += 1
        return lambda offset: EncodedContent(
            content_id(offset),
            offset,
            "image",
            vector[None],
            ContentFacts(source="benchmark", occurred_at_ms=offset),
        )


def _removal(writer: ShardWriter, number: int) -> Callable[[int], Change]:
    return lambda offset: RemovedContent(f"{writer.partition}-{number}", offset, version=1)


def _segment_sizes(num_rows: int) -> Iterator[int]:
    """Return the sizes of a large segment and several small ones, as merging by size leaves them."""
    tail = [num_rows // 20] * 3 + [num_rows // 200] * 4
    yield num_rows - sum(tail)
    yield from tail


def _add(writer: ShardWriter, changes: list[Callable[[int], Change]]) -> None:
    first = writer.next_offset
    placed = [change(first + i) for i, change in enumerate(changes)]
    writer.add(Delta(first, first + len(placed), placed))


def _description() -> IndexDescription:
    fingerprint = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")
    return IndexDescription("content-uploads", None, NUM_PARTITIONS, "cliptide-main", fingerprint)
