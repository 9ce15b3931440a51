"""The time of searching four shards of one segment each, against one shard with the same rows."""

from __future__ import annotations

from benchmarks.figure import MIN_ROUNDS, Figure, interleaved, median_ratio
from benchmarks.searched_index import Layout, queries_of, searcher_of

NAME = "shard_tax"
TARGET, K = 2.5, 10


def measure(*, quick: bool) -> Figure:
    num_rows = 2_000 if quick else 100_000
    searchers = [searcher_of(Layout(num_rows, num_shards=n)) for n in (4, 1)]
    queries = queries_of("text", 10 if quick else 50)

    def ask_all(number: int) -> None:
        for query in queries:
            searchers[number].search(query[None], k=K, modality="image")

    rounds = 2 if quick else MIN_ROUNDS
    four, one = interleaved(rounds, lambda: ask_all(0), lambda: ask_all(1), num_warm_ups=2)
    ratio = median_ratio(four, one)
    return Figure(
        NAME,
        round(ratio.median, 3),
        f"≤ {TARGET}",
        ratio.median <= TARGET,
        {"rows": num_rows, "ratio": ratio.as_dict()},
        [("rows", "4 shards ÷ 1"), (f"{num_rows:,}", str(ratio))],
    )
