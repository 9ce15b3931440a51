"""The time within which a process ends once it has been told to, whatever hangs in it."""

from __future__ import annotations

import os
import sys
import threading

import structlog

log = structlog.get_logger()
MARGIN_SECONDS = 15.0  # beyond what the settings allow for requests and commits
EXIT_CODE = 1


class ExitDeadline:
    """Ends the process with exit code 1 when its orderly end takes too long.

    A thread that is stuck in a call to a file system cannot be stopped, and Python waits for it for ever.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def start(self, seconds: float) -> None:
        """The process has been told to end, and has this long."""
        self._timer = threading.Timer(seconds, _leave, [seconds])
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """The end was in time."""
        if self._timer is not None:
            self._timer.cancel()


def _leave(seconds: float) -> None:
    threads = sorted(thread.name for thread in threading.enumerate() if not thread.daemon)
    log.error("the end takes too long, leaving", seconds=seconds, threads=threads)
    leave(EXIT_CODE)


def leave(exit_code: int) -> None:
    """End the process at once, so that a thread which hangs cannot keep it alive."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)
