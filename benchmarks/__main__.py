"""`python -m benchmarks NAME…`: measure figures, and print them as a table or as JSON."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import platform
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from rich.console import Console
from rich.table import Table

import benchmarks
from benchmarks.figure import Figure
from benchmarks.published import build_table, keep_published

_LIBRARIES = (
    "torch",
    "open_clip_torch",
    "faiss-cpu",
    "numpy",
    "pyarrow",
    "pillow",
    "aiohttp",
    "confluent-kafka",
)


def find_figures() -> dict[str, ModuleType]:
    """Return the modules that measure a figure, by the figure's name."""
    names = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    modules = (importlib.import_module(f"benchmarks.{name}") for name in names if name != "__main__")
    return {module.NAME: module for module in modules if hasattr(module, "NAME")}


def as_json(figure: Figure) -> dict[str, Any]:
    return {
        "figure": figure.name,
        "value": figure.value,
        "target": figure.target,
        "holds": figure.holds,
        **figure.details,
    }


def publish(figure: Figure, seconds: float) -> None:
    """Write the figure into FIGURES.json, with the machine and versions it was measured on."""
    entry = {
        **as_json(figure),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()},
        "versions": {name: version(name) for name in _LIBRARIES},
        "seconds": round(seconds, 1),
    }
    keep_published(figure.name, entry)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    extensions = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{names[0] if names else 'unknown'} ({', '.join(extensions)})"


def _print_table(console: Console, figure: Figure, seconds: float) -> None:
    table = Table(title=f"{figure.name}: {'holds' if figure.holds else 'MISSED'} (target {figure.target})")
    header, *rows = figure.table or (("value",), (str(figure.value),))
    for title in header:
        table.add_column(title)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"{seconds:.0f} s")


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--table", is_flag=True, help="Print the published figures as in docs/figures.md; measure nothing."
)
@click.option("--quick", is_flag=True, help="Check that it runs: small data, few rounds, no real numbers.")
@click.option("--json", "with_json", is_flag=True, help="Print one JSON object for each figure.")
@click.option("--publish", "should_publish", is_flag=True, help="Save the result in benchmarks/FIGURES.json.")
def main(names: tuple[str, ...], table: bool, quick: bool, with_json: bool, should_publish: bool) -> None:
    """Measure the named figures, or `all`."""
    if table:
        print(build_table())
        return
    figures = find_figures()
    wanted = list(figures) if names == ("all",) else list(names)
    if not wanted:
        raise click.UsageError(f"name a figure, or all; there are {', '.join(figures)}")
    if unknown := [name for name in wanted if name not in figures]:
        raise click.UsageError(f"no such figure: {', '.join(unknown)}; there are {', '.join(figures)}")
    console = Console(stderr=with_json)
    for name in wanted:
        start = time.perf_counter()
        figure = figures[name].measure(quick=quick)
        seconds = time.perf_counter() - start
        _print_table(console, figure, seconds)
        if should_publish and not quick:
            publish(figure, seconds)
        if with_json:
            print(json.dumps(as_json(figure)))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
