"""What a tenfold index costs: queries, memory, commits, reloads, merges, opening and takeovers."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figure import Figure
from benchmarks.indexes.grown_index import SEED, Measured, form_of
from benchmarks.indexes.searched_index import CACHE

NAME = "growth"
TARGETS = {
    "query_cpu_ms": 4.0,
    "memory_mb": 12.0,
    "merge_cpu_seconds": 12.0,
    "merge_memory_mb": 12.0,
    "open_cpu_ms": 12.0,
    "takeover_cpu_ms": 12.0,
    "commit_cpu_ms": 1.3,
    "reload_cpu_ms": 1.3,
}
"""The greatest factor at ten times the rows: of what reads everything 12, of what reads what is new 1.3."""
ROWS = 1_000_000
_TARGET_ROWS = 10_000_000
"""Fewer rows show how things grow, and prove nothing of the target."""
_FACTOR = 10
_ROUNDS = 3
_LARGEST = "CLIPTIDE_BENCHMARK_GROWTH_ROWS"
_VECTORS = "CLIPTIDE_INDEX__VECTORS"
_PROGRAM = [sys.executable, "-m", "benchmarks.indexes.grown_index"]


def measure(*, quick: bool) -> Figure:
    """Measure CPU and memory in processes of their own, in turn for both sizes."""
    largest = 20_000 if quick else int(os.environ.get(_LARGEST, ROWS))
    sizes = (largest // _FACTOR, largest)
    built = [_built(num_rows) for num_rows in sizes]
    rounds = [[_look(root) for root, _ in built] for _ in range(1 if quick else _ROUNDS)]
    few, many = ({**built[side][1], **_medians([one[side] for one in rounds])} for side in range(len(sizes)))
    ratios = {name: round(many[name] / few[name], 2) for name in TARGETS}
    return Figure(
        NAME,
        {"rows": largest, **ratios},
        "10 million ÷ 1 million rows: query ≤ 4; linear ≤ 12; flat ≤ 1.3",
        largest >= _TARGET_ROWS and all(ratios[name] <= target for name, target in TARGETS.items()),
        {
            "rows": list(sizes),
            "few": {name: round(few[name], 3) for name in TARGETS},
            "many": {name: round(many[name], 3) for name in TARGETS},
        },
        [
            ("measure", f"{sizes[0]:,} rows", f"{sizes[1]:,} rows", "ratio", "target"),
            *(
                (name, f"{few[name]:.2f}", f"{many[name]:.2f}", f"{ratios[name]:.2f}", f"≤ {target:g}")
                for name, target in TARGETS.items()
            ),
        ],
    )


def _built(num_rows: int) -> tuple[Path, Measured]:
    """Return the cached index of this size, and what its merges took; build it first if it does not exist."""
    form = form_of(os.environ.get(_VECTORS, "fp16"))
    root = CACHE / f"grown-{form}-{num_rows}-{SEED}"
    measured = root / "merges.json"
    if not measured.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        try:
            measured.write_text(json.dumps(_run("build", root / "index", num_rows, form)))
        except BaseException:
            shutil.rmtree(root)  # an unfinished index may have filled the disk
            raise
    return root / "index", json.loads(measured.read_text())


def _look(root: Path) -> Measured:
    """Measure one round on a copy. The files of an index never change, so links to them are a copy."""
    with tempfile.TemporaryDirectory(dir=root.parent) as directory:
        copy = Path(directory) / "index"
        shutil.copytree(root, copy, copy_function=os.link)
        return {**_run("open", copy), **_run("own", copy)}


def _run(*arguments: object) -> dict[str, float]:
    """Run a part of the figure, which writes its progress and its errors to the terminal."""
    command = [*_PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _medians(rounds: list[Measured]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
