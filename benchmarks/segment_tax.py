"""The time and disk space of segments as ingestion leaves them, against one segment a shard."""

from __future__ import annotations

from pathlib import Path

from benchmarks.data import DIMENSION
from benchmarks.figure import MIN_ROUNDS, Figure, interleaved, median_ratio
from benchmarks.indexes.searched_index import Layout, open_index, queries_of, searcher_of
from benchmarks.indexes.write_amplification import ROWS_A_COMMIT, ingest

NAME = "segment_tax"
MAX_RATIO, MAX_BYTES, MAX_AMPLIFICATION, K = 1.3, 0.85, 4.0, 10
LIVING = (0.83, 0.05, 0.05, 0.05, 0.005, 0.005, 0.005, 0.005)  # one merged segment and seven smaller ones


def measure(*, quick: bool) -> Figure:
    """Measure p50 and bytes of four shards, and the write amplification at 25 rows a commit."""
    num_rows = 4_000 if quick else 100_000
    living, single = Layout(num_rows, segment_shares=LIVING), Layout(num_rows)
    searchers = [searcher_of(living), searcher_of(single)]
    queries = queries_of("text", 10 if quick else 50)

    def ask_all(number: int) -> None:
        for query in queries:
            searchers[number].search(query[None], k=K, modality="image")

    rounds = 2 if quick else MIN_ROUNDS
    many, one = interleaved(rounds, lambda: ask_all(0), lambda: ask_all(1), num_warm_ups=2)
    ratio = median_ratio(many, one)
    share = _bytes_of(living) / (num_rows * DIMENSION * 4)
    written = ingest(num_rows // 4)
    amplification = written.amplification
    return Figure(
        NAME,
        {"ratio": round(ratio.median, 3), "bytes": round(share, 3), "amplification": round(amplification, 2)},
        f"≤ {MAX_RATIO}; ≤ {MAX_BYTES} of raw fp32; write amplification ≤ {MAX_AMPLIFICATION:g}",
        ratio.median <= MAX_RATIO and share <= MAX_BYTES and amplification <= MAX_AMPLIFICATION,
        {
            "rows": num_rows,
            "segments_a_shard": len(LIVING),
            "ratio": ratio.as_dict(),
            "bytes_of_raw": round(share, 4),
            "ingested_rows": num_rows // 4,
            "rows_a_commit": ROWS_A_COMMIT,
            "bytes_written": {
                "sealed": written.sealed,
                "merged": written.merged,
                "manifests": written.manifests,
            },
        },
        [
            ("measure", "value"),
            ("segments ÷ one", str(ratio)),
            ("bytes ÷ raw fp32", f"{share:.3f}"),
            ("bytes written ÷ bytes that commits seal", f"{amplification:.2f}"),
        ],
    )


def _bytes_of(layout: Layout) -> int:
    index = open_index(layout).index
    assert index is not None
    return sum(_segment_bytes(index.shard_path(p)) for p in range(layout.num_shards))


def _segment_bytes(shard: Path) -> int:
    return sum(path.stat().st_size for path in (shard / "segments").rglob("*") if path.is_file())
