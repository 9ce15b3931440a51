"""The cost of a filter that was not asked before, against the same filter asked again."""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.data import KINDS, Kind
from benchmarks.figure import Figure, Ratio, median_ratio
from benchmarks.indexes.searched_index import Layout, queries_of, searcher_of
from clip_index.content import Embeddings
from clip_index.row_filter import InRange, RowFilter
from clip_index.searching.searcher import Searcher

NAME = "new_filter"
TARGET, K = 1.5, 10
_ROUNDS = 31  # a search is short, so a median of few rounds would be noise
_SHARES = (0.5, 0.05, 0.005)
_FIRST_MS = 1_700_000_000_000  # the time of row 0; each further row is a millisecond later


def measure(*, quick: bool) -> Figure:
    """CPU time of a search with a new filter ÷ that of the same search again, round by round."""
    sizes, rounds = ((2_000,), 2) if quick else ((100_000, 1_000_000), _ROUNDS)
    ratios = {
        name: ratio
        for kind in KINDS
        for num_rows in sizes
        for name, ratio in _measure_size(kind, num_rows, rounds).items()
    }
    greatest = max(ratio.median for ratio in ratios.values())
    return Figure(
        NAME,
        round(greatest, 2),
        f"≤ {TARGET} for every filter, at 100 k and 1 M rows",
        greatest <= TARGET,
        {"ratios": {name: ratio.as_dict() for name, ratio in ratios.items()}},
        [("data, rows, filter", "new ÷ known"), *((name, str(ratio)) for name, ratio in ratios.items())],
    )


def _measure_size(kind: Kind, num_rows: int, rounds: int) -> dict[str, Ratio]:
    searcher, [query] = searcher_of(Layout(num_rows, kind=kind)), queries_of("text", 1, kind)
    found = {}
    for share in _SHARES:
        for field, filter_of in (
            ("number", lambda n, share=share: _of_number(share, n)),
            ("time", lambda n, share=share: _of_time(share, num_rows, n)),
        ):
            name = f"{kind}, {num_rows:,}, {field} {share:.1%}"
            found[name] = _measure_filter(searcher, query, filter_of, rounds)
    return found


def _of_number(share: float, n: int) -> RowFilter:
    """Keep a share of the rows. Each n gives another filter that keeps the same rows."""
    return RowFilter(must=(InRange("metadata.random", gte=-1.0 - n, lt=share),))


def _of_time(share: float, num_rows: int, n: int) -> RowFilter:
    least = _FIRST_MS + int((1 - share) * num_rows)
    return RowFilter(must=(InRange("occurred_at", gte=least, lt=_FIRST_MS + num_rows + n),))


def _measure_filter(
    searcher: Searcher, query: Embeddings, filter_of: Callable[[int], RowFilter], rounds: int
) -> Ratio:
    """The first round is a warm-up. CPU time is measured, because a busy machine delays either side."""

    def seconds_of(row_filter: RowFilter) -> float:
        began = time.thread_time()
        searcher.search(query[None], k=K, modality="image", row_filter=row_filter)
        return time.thread_time() - began

    pairs = [(seconds_of(filter_of(n)), seconds_of(filter_of(n))) for n in range(rounds + 1)]
    return median_ratio([new for new, _ in pairs[1:]], [known for _, known in pairs[1:]])
