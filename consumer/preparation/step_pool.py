"""Threads that begin steps in the order in which they are submitted."""

from __future__ import annotations

import threading
import time
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
        self._running: dict[threading.Thread, float] = {}  # since when each thread is in its step

    def submit(self, step: Step) -> None:
        """Run the step soon. Once the pool is closed, the step is forgotten."""
        if not self._is_started:
            self._start()
        self._steps.put(step)

    @property
    def num_dead(self) -> int:
        """How many threads have ended though the pool is open."""
        if not self._is_started or self._is_closed:
            return 0
        return sum(not thread.is_alive() for thread in self._threads)

    @property
    def seconds_in_step(self) -> float:
        """For how long the thread that is longest in one step has been in it; 0 while no step runs."""
        return max((time.monotonic() - began for began in list(self._running.values())), default=0.0)

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
            self._running[threading.current_thread()] = time.monotonic()
            step()
            self._running.pop(threading.current_thread(), None)
