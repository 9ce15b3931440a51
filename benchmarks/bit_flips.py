"""How many damaged files are refused. Each has a flipped bit or is truncated; all kinds are tried."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.figure import Figure
from crashes.damage import build_index, damaged_files

NAME = "bit_flips"


def measure(*, quick: bool) -> Figure:
    """Damage files. One counts as refused if reader and writer refuse it (for a watermark, its reader)."""
    number = 60 if quick else 1000
    tried: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        build_index(Path(root))
        for damage in damaged_files(Path(root), seed=1, number=number):
            tried[damage.kind] += 1
            refused[damage.kind] += not damage.misses
    kinds = [(kind, f"{refused[kind]} of {tried[kind]}") for kind in sorted(tried)]
    return Figure(
        NAME,
        f"{refused.total()} / {tried.total()}",
        "1,000 / 1,000",
        refused == tried,
        {"refused": dict(refused), "damaged": dict(tried)},
        [("kind of file", "refused"), *kinds],
    )
