"""The share of the ten best contents that searches find, on clustered and on unclustered embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.data import DIMENSION, KINDS, Kind, draw_far_queries, sum_of
from benchmarks.figure import Figure
from benchmarks.indexes.searched_index import SEED, Layout, queries_of, random_numbers, recall, searcher_of
from clip_index.content import Embeddings
from clip_index.row_filter import InRange, RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.vectors.queries import Queries
from clip_index.vectors.vector_file import VectorFile
from clip_index.views.snapshot import Hit

NAME = "recall"
_ROW_BYTES = 2 * DIMENSION  # of a node or centroid in fp16
MIN_RECALL, MIN_FAR_RECALL, MIN_BEST = 0.99, 0.98, 0.995
K = 10
_PASSING = 0.1
_PAGE_DEPTH = 1_000


@dataclass(frozen=True, slots=True)
class _Measured:
    """`best` is the share of queries whose best content is found.

    A plain search looks at a share `scanned` of the nodes, and would read `read_mb` megabytes of nodes and
    centroids for that if it took no candidates by codes.
    """

    data: Kind
    queries: str
    search: str
    recall: float
    best: float
    scanned: float
    read_mb: float

    @property
    def holds(self) -> bool:
        least = MIN_FAR_RECALL if self.queries == "far" else MIN_RECALL
        return self.recall >= least and (self.queries == "far" or self.best >= MIN_BEST)


def measure(*, quick: bool) -> Figure:
    """Recall@10 of plain, filtered and paged searches, by where the queries come from."""
    num_rows, num_queries = (2_000, 10) if quick else (100_000, 200)
    found = [one for kind in KINDS for one in _measure_kind(kind, num_rows, num_queries)]
    table = [("data", "queries", "search", "recall@10", "best found", "nodes scanned", "MB read")]
    table += [
        (
            *(m.data, m.queries, m.search, f"{m.recall:.4f}", f"{m.best:.4f}"),
            *(f"{m.scanned:.1%}", f"{m.read_mb:.1f}"),
        )
        for m in found
    ]
    usual = [m for m in found if m.queries != "far"]
    return Figure(
        NAME,
        {
            "recall": round(min(m.recall for m in usual), 4),
            "best": round(min(m.best for m in usual), 4),
            "far": round(min(m.recall for m in found if m.queries == "far"), 4),
        },
        f"≥ {MIN_RECALL}; the best content ≥ {MIN_BEST}; far from everything ≥ {MIN_FAR_RECALL}",
        all(m.holds for m in found),
        {"rows": num_rows, "k": K, "searches": [asdict(m) | {"holds": m.holds} for m in found]},
        table,
    )


def _measure_kind(kind: Kind, num_rows: int, num_queries: int) -> list[_Measured]:
    layout = Layout(num_rows, kind=kind)
    searcher, rows, random = searcher_of(layout), layout.rows(), random_numbers(layout)
    measured = []
    for name, queries in _queries(kind, num_queries).items():
        exact = queries @ rows.T
        passing = np.where(random < _PASSING, exact, np.float32(-2))
        row_filter = RowFilter(must=(InRange("metadata.random", lt=_PASSING),))
        scanned = _scanned(searcher, queries)
        around = list(searcher.around("image").values())
        num_read = scanned * num_rows + sum(a.num_lists for a in around)
        for search, answers, scores in (
            ("plain", _ask(searcher, queries), exact),
            ("paged", _ask(searcher, queries, depth=_PAGE_DEPTH), exact),
            ("filtered", _ask(searcher, queries, row_filter=row_filter), passing),
        ):
            found, best = recall(answers, scores, K), recall([hits[:1] for hits in answers], scores, 1)
            shares = (round(found, 4), round(best, 4), round(scanned, 4))
            measured.append(_Measured(kind, name, search, *shares, round(num_read * _ROW_BYTES / 1e6, 1)))
    return measured


def _queries(kind: Kind, num_queries: int) -> dict[str, Embeddings]:
    same, other = queries_of("image", num_queries, kind), queries_of("text", num_queries, kind)
    return {
        "same modality": same,
        "other modality": other,
        "sums": sum_of(same, np.roll(other, 1, axis=0)),
        "sums of one modality": sum_of(same, np.roll(same, 1, axis=0)),
        "differences": sum_of(same, -0.5 * np.roll(same, 1, axis=0)),
        "far": draw_far_queries(num_queries, SEED),
    }


def _ask(
    searcher: Searcher,
    queries: Embeddings,
    *,
    row_filter: RowFilter | None = None,
    depth: int | None = None,
) -> Sequence[Sequence[Hit]]:
    return [
        searcher.search(query[None], k=K, modality="image", row_filter=row_filter, depth=depth)[0]
        for query in queries
    ]


def _count_near(files: Sequence[VectorFile], queries: Queries) -> list[int]:
    return [file.vectors.count_near(queries, None) for file in files]


def _scanned(searcher: Searcher, queries: Embeddings) -> float:
    """Return the share of all nodes that a plain search looks at, in the mean."""
    files = [view.segment.vector_files["image"] for shard in searcher.shard_views for view in shard.segments]
    num_nodes = sum(file.num_nodes for file in files)
    counts: NDArray[np.int64] = np.array(
        [_count_near(files, Queries(query[None], around=searcher.around("image"))) for query in queries]
    )
    return float(counts.sum(axis=1).mean() / num_nodes)
