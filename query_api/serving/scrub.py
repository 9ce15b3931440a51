"""The files that are served, read again now and then: a disk that forgets should not go unnoticed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import structlog

from clip_index.errors import DamagedFile
from query_api.serving.engine import FileDigest, Reader, verify_slowly
from query_api.serving.side_work import SideWork
from query_api.telemetry.metrics import Metrics

log = structlog.get_logger()

ScrubOutcome: TypeAlias = Literal["good", "damaged", "gone", "unreadable"]
MIN_PAUSE_SECONDS = 1.0


class Scrub:
    """Compares each served file with its digest, all of them about once in `interval_seconds`.

    What is damaged is told, in the log and the metrics, and served on: other processes have mapped
    the same file, and only an operator knows where a good copy lies.
    """

    def __init__(self, reader: Reader, metrics: Metrics, interval_seconds: float) -> None:
        self._reader = reader
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self._work = SideWork("scrub")
        for outcome in get_args(ScrubOutcome):
            metrics.scrubbed_files.labels(outcome)  # an alert sees the step from zero

    def scrubbing(self) -> AbstractAsyncContextManager[None]:
        """Read on and on until the context ends."""
        return self._work.going_on(self._scrub_forever())

    async def _scrub_forever(self) -> None:
        while True:
            began = time.monotonic()
            await self._work.run(self.scrub_once, self._reader.served_files())
            spent_seconds = time.monotonic() - began
            await asyncio.sleep(max(MIN_PAUSE_SECONDS, self._interval_seconds - spent_seconds))

    def stop(self) -> None:
        """End the rests of a pass that is under way."""
        self._work.stop()

    def scrub_once(self, files: Mapping[Path, FileDigest]) -> None:
        """Read all files, spread over the interval; `CancelledError` when the service stops."""
        num_bytes = sum(digest.size_bytes for digest in files.values())
        seconds_of_byte = self._interval_seconds / max(1, num_bytes)
        for path, digest in files.items():
            outcome = _scrub(path, digest, lambda read: self._work.rest(read * seconds_of_byte))
            self._metrics.scrubbed_files.labels(outcome).inc()


def _scrub(path: Path, digest: FileDigest, rest: Callable[[int], None]) -> ScrubOutcome:
    try:
        verify_slowly(path, digest, rest)
    except DamagedFile as damage:
        log.error("file damaged while it is served", error=str(damage))
        return "damaged"
    except FileNotFoundError:  # merged away, and collected
        return "gone"
    except OSError as error:
        log.error("file cannot be read", path=str(path), error=str(error))
        return "unreadable"
    return "good"
