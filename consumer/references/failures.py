"""Tells in the log which references fail, without a line for each attempt."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

_log = structlog.get_logger(__name__)
_EVERY_SECONDS = 60.0


class FailureLog:
    """Writes the first failure, and then one a minute as long as references fail. Used by one thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due_at = clock()

    def tell(self, uri: str, record: str, error: Exception, num_failing: int) -> None:
        """Name the host and the record. The path may hold what is not for the log, such as a signature."""
        now = self._clock()
        if now < self._due_at:
            return
        self._due_at = now + _EVERY_SECONDS
        _log.warning(
            "a reference is tried again",
            host=_host(uri),
            record=record,
            error=str(error),
            failing=num_failing,
        )


def _host(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
