"""Damaged files that are refused: one flipped bit or a truncation each, all kinds of files."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.figure import Figure
from tools.crash.damage import build_index, damaged_files

NAME = "bit_flips"


def measure(*, quick: bool) -> Figure:
    """A file counts as refused if whoever opens it refuses: reader and writer, or the watermark's reader."""
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
