"""The indexes of the search figures. The real writer builds them once; they are kept in `.cache/`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from benchmarks.data import DIMENSION, Kind, draw_queries, draw_rows, draw_space
from clip_index.content import ContentFacts, Delta, Embeddings, EncodedContent, Modality
from clip_index.encoder.protocol import EncoderFingerprint
from clip_index.generations.takeover import Claim
from clip_index.indexes.index_directory import IndexDescription, IndexDirectory
from clip_index.reading.index_reader import IndexReader
from clip_index.searching.searcher import Searcher
from clip_index.storage.pack import ByteSink
from clip_index.vectors.centroid_set import CentroidFile, KnownLists
from clip_index.vectors.shared_vectors import SharedVectors
from clip_index.vectors.vector_file import WrittenLists
from clip_index.views.segment_view import SegmentView
from clip_index.views.snapshot import Hit, ShardSnapshot, ShardView
from clip_index.writing.shard_writer import ShardWriter, WriterSettings

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "figures"
SEED = 11
_DONE = "complete"
_TIE = 1e-4  # fp16 embeddings shift scores by less


@dataclass(frozen=True, slots=True)
class Layout:
    """`num_rows` of one modality in shards; `segment_shares` are the sizes of a shard's segments."""

    num_rows: int
    num_shards: int = 4
    segment_shares: tuple[float, ...] = (1.0,)
    modality: Modality = "image"
    kind: Kind = "clustered"

    @property
    def name(self) -> str:
        shares = "-".join(f"{share:g}" for share in self.segment_shares)
        return f"spread-{self.kind}-{self.modality}-{self.num_rows}-{self.num_shards}-{shares}-{SEED}"

    def rows(self) -> Embeddings:
        """Return the embeddings. Row n has the content id `<modality>-<n>`."""
        return draw_rows(draw_space(SEED, self.kind), self.modality, self.num_rows, SEED)


def queries_of(modality: Modality, num_queries: int, kind: Kind = "clustered") -> Embeddings:
    return draw_queries(draw_space(SEED, kind), modality, num_queries, SEED)


def open_index(layout: Layout) -> IndexReader:
    """Open the cached index of this layout; build it first if it does not exist."""
    reader = IndexReader(_cached_root(layout))
    reader.reload()
    return reader


def cached_index(layout: Layout) -> IndexDirectory:
    """Return the directory of the index of this layout; build it first if it does not exist."""
    return IndexDirectory.open(_cached_root(layout))


def _cached_root(layout: Layout) -> Path:
    root = CACHE / layout.name
    if not (root / _DONE).exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        _build(root, layout)
        (root / _DONE).touch()
    return root


def searcher_of(layout: Layout) -> Searcher:
    searcher = open_index(layout).searcher
    assert searcher is not None
    return searcher


def random_numbers(layout: Layout) -> NDArray[np.float64]:
    """Return the `random` number from 0 to 1 that each row has in its metadata."""
    random: NDArray[np.float64] = np.random.default_rng(SEED).random(layout.num_rows)
    return random


def nearness(layout: Layout, rows: Embeddings) -> NDArray[np.float64]:
    """Return each row's `near`: its rank from 0 to 1 by its cosine with the centre of the queries."""
    order = np.argsort(rows @ pivot(layout.kind), kind="stable")
    ranks = np.empty(layout.num_rows)
    ranks[order] = np.arange(layout.num_rows) / layout.num_rows
    return ranks


def pivot(kind: Kind = "clustered") -> Embeddings:
    first: Embeddings = queries_of("text", 1, kind)[0]
    return first


def searcher_with_dead_rows(layout: Layout, share: float) -> tuple[Searcher, NDArray[np.bool_]]:
    """Return the same index with a share of its rows deleted, and a mask of the rows that live."""
    is_alive = np.random.default_rng(SEED + 1).random(layout.num_rows) >= share
    shards = []
    for shard in searcher_of(layout).shard_views:
        views = []
        for view in shard.segments:
            numbers = [_number(view.segment.content_id(row)) for row in range(view.segment.num_rows)]
            views.append(SegmentView(view.segment, BitMap(np.flatnonzero(~is_alive[numbers]).tolist())))
        shards.append(ShardView(shard.name, ShardSnapshot(1, 0, 0, None, {}), tuple(views)))
    return Searcher(shards, DIMENSION), is_alive


def recall(answers: Sequence[Sequence[Hit]], scores: NDArray[np.float32], k: int) -> float:
    """Return the share of the k best rows that was answered.

    `scores` is (queries, rows), with −2 for rows that are not eligible. A hit counts if its exact score
    reaches the k-th best one, so ties count as found.
    """
    num_reached, num_wanted = 0, 0
    for hits, exact in zip(answers, scores, strict=True):
        num_eligible = min(k, int((exact > -2).sum()))
        least = np.partition(exact, -num_eligible)[-num_eligible]
        found = [_number(hit.content_id) for hit in hits]
        num_reached += sum(bool(exact[n] >= least - _TIE) for n in found)
        num_wanted += num_eligible
    return num_reached / num_wanted


def _number(content_id: str) -> int:
    return int(content_id.rpartition("-")[2])


class _AsMerged:
    """Writes vectors as the merges of all shards do when all rows are committed."""

    def __init__(self, layout: Layout, rows: Embeddings) -> None:
        self._layout = layout
        self._rows = rows
        self._files: dict[str, CentroidFile] = {}

    def __call__(
        self,
        file: ByteSink,
        embeddings: NDArray[np.float16],
        others: NDArray[np.float16] | None,
        modality: Modality,
        known: KnownLists | None = None,
        /,
    ) -> WrittenLists | None:
        rest = _Rest(
            self._rows,
            self._layout.num_shards,
            self._layout.num_rows - len(embeddings),
            list(self._files.values()),
        )
        written = SharedVectors(rest)(file, embeddings, others, modality, known)
        if written is not None and written.shared is not None:
            self._files[written.shared.digest.xxh3_128] = written.shared
        return written


@dataclass(frozen=True, slots=True)
class _Rest:
    """The rest of the index as a segment's merge would find it."""

    rows: Embeddings
    num_shards: int
    num_others: int
    files: list[CentroidFile]

    def num_nodes(self, _modality: Modality) -> int:
        return self.num_others

    def sets(self, _modality: Modality) -> list[CentroidFile]:
        return self.files

    def sample(self, _modality: Modality, num_nodes: int) -> NDArray[np.float16]:
        chosen = np.random.default_rng(SEED).choice(len(self.rows), min(num_nodes, len(self.rows)), False)
        return self.rows[np.sort(chosen)].astype(np.float16)


def _build(root: Path, layout: Layout) -> None:
    fingerprint = EncoderFingerprint("generated", "0", DIMENSION, "none", "none")
    description = IndexDescription("content-uploads", None, layout.num_shards, "cliptide-main", fingerprint)
    index = IndexDirectory.create(root, "main", description)
    rows = layout.rows()
    random, near = random_numbers(layout), nearness(layout, rows)
    settings = WriterSettings(write_sealed=_AsMerged(layout, rows))
    for partition in range(layout.num_shards):
        numbers = np.arange(partition, layout.num_rows, layout.num_shards)
        writer = ShardWriter.take_over(index, partition, Claim("benchmark"), settings=settings)
        ends = np.cumsum(np.round(np.array(layout.segment_shares) * len(numbers)).astype(int))
        for part in np.split(numbers, ends[:-1]):
            start = writer.next_offset
            changes = [
                EncodedContent(
                    f"{layout.modality}-{n}",
                    start + position,
                    layout.modality,
                    rows[n][None],
                    ContentFacts(
                        source="benchmark",
                        occurred_at_ms=1_700_000_000_000 + int(n),
                        metadata={"random": float(random[n]), "near": float(near[n])},
                    ),
                )
                for position, n in enumerate(part)
            ]
            writer.add(Delta(start, start + len(changes), changes))
            writer.commit()
        writer.close()
