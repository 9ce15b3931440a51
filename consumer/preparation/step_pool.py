"""Threads that begin steps in the order in which they are submitted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

Step: TypeAlias = Callable[[], None]


class StepPool:
    """An executor without futures, because a future for each step was a quarter of a small record's cost.

    A step must not raise. The first step starts the threads. Thread-safe.
    """

    def __init__(self, num_threads: int, name: str) -> None:
        self._steps: SimpleQueue[Step | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True)
            for number in range(num_threads)
        ]
        self._lock = threading.Lock()
        self._is_started = self._is_closed = False

    def submit(self, step: Step) -> None:
        """Run the step soon. Once the pool is closed, the step is forgotten."""
        if not self._is_started:
            self._start()
        self._steps.put(step)

    def close(self) -> None:
        """Forget the steps that have not begun, without waiting for those that have."""
        self._is_closed = True
        for _ in self._threads:
            self._steps.put(None)

    def _start(self) -> None:
        with self._lock:
            if self._is_started:
                return
            for thread in self._threads:
                thread.start()
            self._is_started = True

    def _run(self) -> None:
        while (step := self._steps.get()) is not None and not self._is_closed:
            step()
