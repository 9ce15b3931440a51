"""Shows progress: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

PLAIN_LINE_EVERY_SECONDS = 2.0


class ProgressView(Protocol):
    """Shows how far some counts have come. `update` is cheap enough to be called at every step."""

    def update(self, name: str, completed: int) -> None: ...


class LiveProgress:
    """Draws one bar for each name."""

    def __init__(self, progress: Progress, tasks: dict[str, TaskID]) -> None:
        self._progress = progress
        self._tasks = tasks

    def update(self, name: str, completed: int) -> None:
        self._progress.update(self._tasks[name], completed=completed)


class PlainProgress:
    """Prints one line with all counts, every few seconds and at the end."""

    def __init__(
        self, console: Console, totals: dict[str, int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._totals = totals
        self._counts = dict.fromkeys(totals, 0)
        self._clock = clock
        self._next_line = clock() + PLAIN_LINE_EVERY_SECONDS

    def update(self, name: str, completed: int) -> None:
        self._counts[name] = completed
        if self._clock() >= self._next_line:
            self.print_line()

    def print_line(self) -> None:
        self._next_line = self._clock() + PLAIN_LINE_EVERY_SECONDS
        counts = (f"{name} {self._counts[name]}/{total}" for name, total in self._totals.items())
        self._console.print("  ".join(counts), highlight=False, markup=False, soft_wrap=True)


@contextmanager
def show_progress(console: Console, totals: dict[str, int]) -> Iterator[ProgressView]:
    """Show one bar for each name of `totals` while the block runs."""
    if not console.is_terminal:
        plain = PlainProgress(console, totals)
        yield plain
        plain.print_line()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield LiveProgress(progress, {name: progress.add_task(name, total=n) for name, n in totals.items()})
