"""Violations after kills and simulated power cuts, and how the time to recover grows with the index."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.figure import MIN_ROUNDS, Figure, Ratio, interleaved, median_ratio
from benchmarks.indexes.recovery import build_index
from crashes.campaign import LONG
from crashes.campaign_process import finish_campaign, start_campaign

NAME = "crash"
TARGET = 1.5
_CAMPAIGNS = ("step_kills", "random_kills", "power_cuts")


def measure(*, quick: bool) -> Figure:
    """Run the crash campaigns, and compare the recovery of a 200 k index with that of a 10 k one."""
    numbers = {name: 20 if quick else LONG[name] for name in _CAMPAIGNS}
    running = [start_campaign(name, number=number) for name, number in numbers.items()]
    found = dict(zip(numbers, map(finish_campaign, running), strict=True))
    recovery = _recovery_ratio((1_000, 2_000) if quick else (10_000, 200_000), 2 if quick else MIN_ROUNDS)
    violating = {name: result["violating"] for name, result in found.items()}
    tried = {name: result["tried"] for name, result in found.items()}
    return Figure(
        NAME,
        {**violating, "recovery": round(recovery.median, 3)},
        f"0 / 1,000 kills, 0 / 5,000 power failures; ≤ {TARGET}",
        not any(violating.values()) and recovery.median <= TARGET,
        {"violations": found, "recovery_ratio": recovery.as_dict()},
        _table(violating, tried, recovery),
    )


def _table(violating: dict[str, Any], tried: dict[str, Any], recovery: Ratio) -> list[tuple[str, str]]:
    rows = [(name.replace("_", " "), f"{violating[name]} of {tried[name]:,}") for name in violating]
    return [("what", "violations"), *rows, ("recovery time, 200 k ÷ 10 k rows", str(recovery))]


def _recovery_ratio(sizes: tuple[int, int], rounds: int) -> Ratio:
    """Time a fresh process from its start to its first commits; the files are in the page cache."""
    with tempfile.TemporaryDirectory() as directory:
        roots = [Path(directory) / str(size) for size in sizes]
        for root, size in zip(roots, sizes, strict=True):
            build_index(root, size)
        small, large = interleaved(rounds, *map(_recovery_of, roots))
    return median_ratio(large, small)


def _recovery_of(root: Path) -> Callable[[], object]:
    command = [sys.executable, "-m", "benchmarks.indexes.recovery", str(root)]
    return lambda: subprocess.run(command, check=True, cwd=Path(__file__).resolve().parent.parent)
