"""The time of a search against an exact flat scan in fp32, one query at a time, one thread on each side."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import faiss
import numpy as np

from benchmarks.data import Kind
from benchmarks.figure import MIN_ROUNDS, Figure, Ratio, median_ratio
from benchmarks.indexes.searched_index import Layout, queries_of, recall, searcher_of
from clip_index.content import Embeddings

NAME = "search"
TARGETS: dict[Kind, dict[int, float]] = {
    "clustered": {100_000: 45.0, 1_000_000: 120.0},
    "spectrum": {100_000: 12.0, 1_000_000: 40.0},
}
MIN_RECALL, K = 0.99, 10


@dataclass(frozen=True, slots=True)
class _Size:
    """What was measured with one kind of data at one number of rows."""

    kind: Kind
    num_rows: int
    ratio: Ratio
    recall: float
    flat_ms: float
    ours_ms: float
    target: float

    @property
    def holds(self) -> bool:
        return self.ratio.median >= self.target and self.recall >= MIN_RECALL


def measure(*, quick: bool) -> Figure:
    """p50 of the flat scan ÷ ours, round by round, for each kind of data at each number of rows.

    In a round one side answers all queries, then the other. They do not alternate by query, because a
    flat scan reads 200 MB and more, so our next query would always start with empty processor caches.
    Nor are the queries few: 30 of ours take 15 ms, for much of which the caches fill again.
    """
    num_queries, rounds = (5, 2) if quick else (100, MIN_ROUNDS)
    sizes = [
        _measure_size(kind, 2_000 if quick else num_rows, target, num_queries=num_queries, rounds=rounds)
        for kind, targets in TARGETS.items()
        for num_rows, target in targets.items()
    ]
    table = [("data", "rows", "flat ms", "ours ms", "ratio", "recall@10")]
    table += [
        (s.kind, f"{s.num_rows:,}", f"{s.flat_ms}", f"{s.ours_ms}", str(s.ratio), f"{s.recall}")
        for s in sizes
    ]
    return Figure(
        NAME,
        {f"{size.kind} {size.num_rows}": round(size.ratio.median, 1) for size in sizes},
        f"clustered ≥ 45 at 100 k rows and ≥ 120 at 1 M, spectrum ≥ 12 and ≥ 40; recall@10 ≥ {MIN_RECALL}",
        all(size.holds for size in sizes),
        {"sizes": [asdict(size) | {"ratio": size.ratio.as_dict(), "holds": size.holds} for size in sizes]},
        table,
    )


def _measure_size(kind: Kind, num_rows: int, target: float, *, num_queries: int, rounds: int) -> _Size:
    layout = Layout(num_rows, kind=kind)
    searcher, rows, queries = searcher_of(layout), layout.rows(), queries_of("text", num_queries, kind)
    faiss.omp_set_num_threads(1)
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    ours_p50, flat_p50 = [], []
    for _ in range(rounds + 1):
        ours_p50.append(_p50(queries, lambda query: searcher.search(query, k=K, modality="image")))
        flat_p50.append(_p50(queries, lambda query: flat.search(query, K)))
    found = recall(searcher.search(queries, k=K, modality="image"), queries @ rows.T, K)
    flat_ms, ours_ms = (round(float(np.median(side[1:])) * 1000, 3) for side in (flat_p50, ours_p50))
    ratio = median_ratio(flat_p50[1:], ours_p50[1:])
    return _Size(kind, num_rows, ratio, round(found, 4), flat_ms, ours_ms, target)


def _p50(queries: Embeddings, search: Callable[[Embeddings], object]) -> float:
    """Return the median seconds of a search for one query, (1, dimension)."""
    times = []
    for query in queries:
        began = time.perf_counter()
        search(query[None])
        times.append(time.perf_counter() - began)
    return float(np.median(times))
