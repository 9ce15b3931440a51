"""The signals that ask a consumer to stop."""

from __future__ import annotations

import signal
import time
from types import FrameType

SIGNAL_POLL_SECONDS = 0.1


class Signals:
    """Remembers that a stop was asked for.

    A signal handler must not do more, because the interrupted thread may hold any lock.
    """

    def __init__(self) -> None:
        self.is_stop_requested = False

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._request_stop)

    def pause(self, seconds: float) -> None:
        """Wait, but not after a stop was asked for."""
        deadline = time.monotonic() + seconds
        while not self.is_stop_requested and (rest := deadline - time.monotonic()) > 0:
            time.sleep(min(rest, SIGNAL_POLL_SECONDS))

    def wait(self) -> None:
        """Wait until a stop is asked for."""
        while not self.is_stop_requested:
            time.sleep(SIGNAL_POLL_SECONDS)

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stop_requested = True
