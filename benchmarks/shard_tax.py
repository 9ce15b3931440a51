"""The time of searching four shards of one segment each, against one shard with the same rows."""

from __future__ import annotations

from benchmarks.data import KINDS, Kind
from benchmarks.figure import MIN_ROUNDS, Figure, Ratio, interleaved, median_ratio
from benchmarks.indexes.searched_index import Layout, queries_of, searcher_of

NAME = "shard_tax"
TARGET, K = 1.4, 10


def measure(*, quick: bool) -> Figure:
    num_rows = 2_000 if quick else 100_000
    ratios = {kind: _measure_kind(kind, num_rows, quick=quick) for kind in KINDS}
    return Figure(
        NAME,
        {kind: round(ratio.median, 3) for kind, ratio in ratios.items()},
        f"≤ {TARGET} on both kinds of data",
        all(ratio.median <= TARGET for ratio in ratios.values()),
        {"rows": num_rows, "ratios": {kind: ratio.as_dict() for kind, ratio in ratios.items()}},
        [("data", "rows", "4 shards ÷ 1"), *((k, f"{num_rows:,}", str(r)) for k, r in ratios.items())],
    )


def _measure_kind(kind: Kind, num_rows: int, *, quick: bool) -> Ratio:
    searchers = [searcher_of(Layout(num_rows, num_shards=n, kind=kind)) for n in (4, 1)]
    queries = queries_of("text", 10 if quick else 50, kind)

    def ask_all(number: int) -> None:
        for query in queries:
            searchers[number].search(query[None], k=K, modality="image")

    rounds = 2 if quick else MIN_ROUNDS
    four, one = interleaved(rounds, lambda: ask_all(0), lambda: ask_all(1), num_warm_ups=2)
    return median_ratio(four, one)
