"""Show how a run goes: a bar with loss, recall and time left, or lines; and TensorBoard's event files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cliptide.finetuning.errors import FinetuneRefused
from cliptide.finetuning.run import Observer
from cliptide.pairs.quality import TwoWayQuality
from cliptide.terminal.progress import PLAIN_LINE_EVERY_SECONDS


class BarObserver:
    """Draws a bar at a terminal. Elsewhere it prints a line every few seconds and after each evaluation."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("time left"),
            TimeRemainingColumn(),
        )
        self._console, self._num_steps, self._clock = console, 0, clock
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("tune", total=None)
        self._loss, self._recall = float("nan"), 0.0
        self._began, self._first_step, self._next_line = clock(), 0, clock()

    @contextmanager
    def shown(self, num_steps: int) -> Iterator[BarObserver]:
        self._num_steps, self._began = num_steps, self._clock()
        self._bar.update(self._task, total=num_steps)
        with self._bar:
            yield self

    def resumed(self, step: int) -> None:
        self._first_step = step
        self._say(f"going on from the checkpoint at step {step:,} of {self._num_steps:,}")

    def stepped(self, step: int, loss: float, learning_rate: float) -> None:
        self._loss = loss
        self._bar.update(self._task, completed=step, description=self._state())
        if not self._console.is_terminal and self._clock() >= self._next_line:
            self._next_line = self._clock() + PLAIN_LINE_EVERY_SECONDS
            self._say(f"step {step:,}/{self._num_steps:,}  {self._state()}  time left {self._left(step)}")

    def evaluated(self, step: int, quality: TwoWayQuality) -> None:
        self._recall = quality.mean_recall
        self._say(f"step {step:,}: recall@1 {self._recall:.3f} on {quality.num_pairs:,} held-out pairs")

    def _state(self) -> str:
        return f"loss {self._loss:.3f}  recall@1 {self._recall:.3f}"

    def _left(self, step: int) -> str:
        each = (self._clock() - self._began) / max(1, step - self._first_step)
        minutes, seconds = divmod(int(each * (self._num_steps - step)), 60)
        return f"{minutes}:{seconds:02d}"

    def _say(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class TensorBoardObserver:
    """Writes loss, learning rate and recall as event files that TensorBoard reads."""

    def __init__(self, directory: Path) -> None:
        self._writer = _open_writer(directory)

    def resumed(self, step: int) -> None:
        """The files of the former run stay beside the new one, and TensorBoard joins them."""

    def stepped(self, step: int, loss: float, learning_rate: float) -> None:
        self._writer.add_scalar("loss", loss, step)
        self._writer.add_scalar("learning_rate", learning_rate, step)

    def evaluated(self, step: int, quality: TwoWayQuality) -> None:
        for direction, found in quality.by_direction.items():
            for name, value in (found.figures if found is not None else {}).items():
                tag = f"{direction}/{name.replace('@', '_at_')}"  # TensorBoard's names have no @
                self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _open_writer(directory: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter  # here: it is an extra, and few runs write these files
    except ImportError:
        raise FinetuneRefused(
            "--tensorboard needs the package tensorboardX: pip install 'cliptide[tensorboard]'"
        ) from None
    return SummaryWriter(str(directory))


class Observers:
    """Tells several observers."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers

    def resumed(self, step: int) -> None:
        for observer in self._observers:
            observer.resumed(step)

    def stepped(self, step: int, loss: float, learning_rate: float) -> None:
        for observer in self._observers:
            observer.stepped(step, loss, learning_rate)

    def evaluated(self, step: int, quality: TwoWayQuality) -> None:
        for observer in self._observers:
            observer.evaluated(step, quality)
