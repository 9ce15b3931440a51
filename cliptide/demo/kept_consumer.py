"""Keeps the demo's consumer running, as a supervisor does in production."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from cliptide.demo.child_process import STOP_PATIENCE_SECONDS, Child, ChildDied, last_lines

FAULT, FENCED = 1, 7  # exit codes of the consumer after which it says itself to start it again
MAX_RESTARTS = 5  # the fourth death sets a record aside that kills the process
RESTARTS_COUNT_FOR_SECONDS = 300.0


class ConsumerStopped(ChildDied):
    """The consumer has ended, and another start would end in the same way."""


class KeptConsumer:
    """A consumer that is started again after a crash, at most 5 times in 5 minutes."""

    def __init__(self, start: Callable[[], Child], clock: Callable[[], float] = time.monotonic) -> None:
        self._start = start
        self._clock = clock
        self._child = start()
        self._restarted_at: deque[float] = deque(maxlen=MAX_RESTARTS)

    @property
    def pid(self) -> int:
        return self._child.pid

    def check(self) -> None:
        """Start the consumer again if it has crashed. Raise `ConsumerStopped` if that would not help."""
        try:
            self._child.check()
        except ChildDied as died:
            exit_code = died.exit_code
            if exit_code is None or not self._may_restart(exit_code):
                raise ConsumerStopped(died.name, last_lines(self._child.log_path), exit_code) from died
            self._restarted_at.append(self._clock())
            self._child = self._start()

    def ask_to_end(self) -> None:
        self._child.ask_to_end()

    def stop(self, patience_seconds: float = STOP_PATIENCE_SECONDS) -> int:
        return self._child.stop(patience_seconds)

    def _may_restart(self, exit_code: int) -> bool:
        """Whether the consumer crashed (a negative code is a signal), and has not done so too often."""
        if not (exit_code < 0 or exit_code in (FAULT, FENCED)):
            return False
        times = self._restarted_at
        return len(times) < MAX_RESTARTS or self._clock() - times[0] > RESTARTS_COUNT_FOR_SECONDS
