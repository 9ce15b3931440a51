"""Shows how far the uploads have come: a line that is rewritten at a terminal, new lines in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from cliptide.terminal.progress import PlainProgress, ProgressView


class OneLine:
    """Shows both counts in one line. The bar shows what is searchable."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress = progress
        self._task = progress.add_task("uploads", total=total, published=0, num_all=f"{total:,}")

    def update(self, name: str, completed: int) -> None:
        if name == "searchable":
            self._progress.update(self._task, completed=completed)
        else:
            self._progress.update(self._task, published=completed)


@contextmanager
def show_uploads(console: Console, total: int) -> Iterator[ProgressView]:
    """Show how many of `total` uploads are published and searchable while the block runs."""
    if not console.is_terminal:
        plain = PlainProgress(console, {"published": total, "searchable": total})
        yield plain
        plain.print_line()
        return
    counts = "{task.fields[published]:,} of {task.fields[num_all]} published, {task.completed:,} searchable"
    columns = (BarColumn(bar_width=20), TextColumn(counts, markup=False))
    with Progress(*columns, console=console) as progress:
        yield OneLine(progress, total)
