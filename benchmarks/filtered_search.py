"""Recall and time of searches with filters, with dead rows, and in the other modality.

Filters are independent of the query, or keep the rows nearest to it, or keep the farthest ones. Each
search is compared with an exact scan of the rows that pass: the filter is evaluated on a plain array,
and FAISS scans what passes in fp32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.data import KINDS, Kind
from benchmarks.figure import Figure
from benchmarks.indexes.searched_index import (
    Layout,
    nearness,
    pivot,
    queries_of,
    random_numbers,
    recall,
    searcher_of,
    searcher_with_dead_rows,
)
from clip_index.content import Embeddings, Modality
from clip_index.row_filter import InRange, RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.views.snapshot import Hit

NAME = "filtered_search"
MIN_RECALL, MAX_RATIO = 0.99, 0.5
K = 10
_SHARES = (0.5, 0.2, 0.1, 0.05, 0.005)
_DEAD_SHARES = (0.01, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class _Case:
    """One kind of search. `filter_of(n)` differs for each query n, so that no cache helps.

    `passes(n)` evaluates the same filter on plain arrays: a mask (rows,).
    """

    name: str
    searcher: Searcher
    is_eligible: NDArray[np.bool_]
    filter_of: Callable[[int], RowFilter | None]
    passes: Callable[[int], NDArray[np.bool_]]
    modality: Modality = "image"


def measure(*, quick: bool) -> Figure:
    """Measure recall@10 and p50 of single queries; an exact scan follows each in the same round."""
    num_rows, num_queries = (2_000, 10) if quick else (100_000, 100)
    found = [one for kind in KINDS for one in _measure_kind(Layout(num_rows, kind=kind), num_queries)]
    least = min(result["recall"] for result in found)
    slowest = max(result["ratio"] for result in found)
    is_full = all(result["has_k"] for result in found)
    table = [("data, filter", "recall@10", "p50 ms", "÷ exact scan")]
    table += [(r["case"], f"{r['recall']:.4f}", f"{r['p50_ms']:.2f}", f"{r['ratio']:.2f}") for r in found]
    return Figure(
        NAME,
        {"recall": round(least, 4), "ratio": round(slowest, 2)},
        f"recall ≥ {MIN_RECALL} everywhere; p50 ≤ {MAX_RATIO:g}× an exact scan; always k live results",
        least >= MIN_RECALL and slowest <= MAX_RATIO and is_full,
        {"rows": num_rows, "cases": found, "always_k": is_full},
        table,
    )


def _measure_kind(layout: Layout, num_queries: int) -> list[dict[str, Any]]:
    queries = _queries_around_the_pivot(layout.kind, num_queries)
    searcher, rows = searcher_of(layout), layout.rows()
    exact, flat = queries @ rows.T, _flat(rows)
    found = [_measure_case(case, flat, queries, exact) for case in _cases(layout, searcher, rows)]
    found.append(_measure_other_modality(layout, num_queries))
    return [result | {"case": f"{layout.kind}, {result['case']}"} for result in found]


def _flat(rows: Embeddings) -> faiss.IndexFlatIP:
    flat = faiss.IndexFlatIP(rows.shape[1])
    flat.add(rows)
    return flat


def _queries_around_the_pivot(kind: Kind, num_queries: int) -> Embeddings:
    mixed = 0.7 * pivot(kind) + 0.3 * queries_of("text", num_queries + 1, kind)[1:]
    unit: Embeddings = (mixed / np.linalg.norm(mixed, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _cases(layout: Layout, searcher: Searcher, rows: Embeddings) -> list[_Case]:
    random, near = random_numbers(layout), nearness(layout, rows)
    cases = [_unfiltered("none", searcher, np.ones(layout.num_rows, np.bool_))]
    for share in _SHARES:
        cases += [
            _filtered(f"random {share:.1%}", searcher, "random", random, (-1.0, share)),
            _filtered(f"with it {share:.1%}", searcher, "near", near, (1 - share, 2.0)),
            _filtered(f"against it {share:.1%}", searcher, "near", near, (-1.0, share)),
        ]
    for share in _DEAD_SHARES:
        cases.append(_unfiltered(f"dead {share:.0%}", *searcher_with_dead_rows(layout, share)))
    return cases


def _unfiltered(
    name: str, searcher: Searcher, is_alive: NDArray[np.bool_], modality: Modality = "image"
) -> _Case:
    return _Case(name, searcher, is_alive, lambda _: None, lambda _: is_alive, modality)


def _filtered(
    name: str, searcher: Searcher, key: str, values: NDArray[np.float64], bounds: tuple[float, float]
) -> _Case:
    """Keep the rows whose value lies within the bounds. A bound that all values keep differs by query."""
    least, greatest = bounds

    def bounds_of(n: int) -> tuple[float, float]:
        return (least - n, greatest) if least < 0 else (least, greatest + n)

    def filter_of(n: int) -> RowFilter:
        gte, lt = bounds_of(n)
        return RowFilter(must=(InRange(f"metadata.{key}", gte=gte, lt=lt),))

    def passes(n: int) -> NDArray[np.bool_]:
        gte, lt = bounds_of(n)
        return (values >= gte) & (values < lt)

    return _Case(name, searcher, passes(0), filter_of, passes)


def _measure_case(
    case: _Case, flat: faiss.IndexFlatIP, queries: Embeddings, exact: NDArray[np.float32]
) -> dict[str, Any]:
    def ask(n: int) -> list[Hit]:
        [hits] = case.searcher.search(
            queries[n][None], k=K, modality=case.modality, row_filter=case.filter_of(n)
        )
        return hits

    def scan(n: int) -> None:
        bitmap = np.packbits(case.passes(n), bitorder="little")
        flat.search(queries[n][None], K, params=faiss.SearchParameters(sel=faiss.IDSelectorBitmap(bitmap)))

    faiss.omp_set_num_threads(1)
    ask(0)
    scan(0)
    answers, times, scan_times = [], [], []
    for n in range(len(queries)):
        began = time.perf_counter()
        answers.append(ask(n))
        between = time.perf_counter()
        scan(n)
        times.append(between - began)
        scan_times.append(time.perf_counter() - between)
    eligible = np.where(case.is_eligible, exact, np.float32(-2))
    return _result(case.name, recall(answers, eligible, K), times, scan_times, answers)


def _measure_other_modality(layout: Layout, num_queries: int) -> dict[str, Any]:
    """Ask for texts with queries that are texts, from everywhere: no filter needs them to be alike."""
    other = Layout(layout.num_rows, modality="text", kind=layout.kind)
    queries, rows = queries_of("text", num_queries, layout.kind), other.rows()
    case = _unfiltered("other modality", searcher_of(other), np.ones(other.num_rows, np.bool_), "text")
    return _measure_case(case, _flat(rows), queries, queries @ rows.T)


def _result(
    name: str,
    found_recall: float,
    times: Sequence[float],
    scan_times: Sequence[float],
    answers: Sequence[Sequence[Hit]],
) -> dict[str, Any]:
    return {
        "case": name,
        "recall": round(found_recall, 4),
        "p50_ms": round(float(np.median(times)) * 1000, 3),
        "ratio": round(float(np.median(times) / np.median(scan_times)), 2),
        "has_k": all(len(hits) == K for hits in answers),
    }
