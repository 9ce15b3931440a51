"""Reads the served files again now and then, because a disk may damage a file that nobody reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import structlog

from clip_index.errors import DamagedFile
from query_api.serving.background_job import BackgroundJob
from query_api.serving.engine import FileDigest, Reader, verify_slowly
from query_api.telemetry.metrics import Metrics

log = structlog.get_logger()

ScrubOutcome: TypeAlias = Literal["good", "damaged", "mended", "gone", "unreadable"]
MIN_PAUSE_SECONDS = 1.0


class Scrub:
    """Compares every served file with its digest, once in about `interval_seconds`.

    It reports a damaged file in the log and the metrics. A local copy of an object is fetched again. Any
    other file is served on: other processes have mapped it, and only an operator knows where a good copy is.
    """

    def __init__(self, reader: Reader, metrics: Metrics, interval_seconds: float) -> None:
        self._reader = reader
        self._metrics = metrics
        self._interval_seconds = interval_seconds
        self.job = BackgroundJob("scrub")
        for outcome in get_args(ScrubOutcome):
            metrics.scrubbed_files.labels(outcome)  # starts at zero, so that an alert sees the first step

    def scrubbing(self) -> AbstractAsyncContextManager[None]:
        """Repeat passes over the files until the context ends."""
        return self.job.running(self._scrub_forever())

    async def _scrub_forever(self) -> None:
        while True:
            began = time.monotonic()
            await self.job.run(self.scrub_once, self._reader.served_files())
            spent_seconds = time.monotonic() - began
            await asyncio.sleep(max(MIN_PAUSE_SECONDS, self._interval_seconds - spent_seconds))

    def stop(self) -> None:
        """End a pass that is under way at its next pause."""
        self.job.stop()

    def scrub_once(self, files: Mapping[Path, FileDigest]) -> None:
        """Read all files, spread over the interval; raise `CancelledError` when the service stops."""
        num_bytes = sum(digest.size_bytes for digest in files.values())
        seconds_of_byte = self._interval_seconds / max(1, num_bytes)
        for path, digest in files.items():
            outcome = _scrub(path, digest, lambda read: self.job.pause(read * seconds_of_byte))
            if outcome == "damaged" and self._reader.mend(path):
                outcome = "mended"
                log.warning("a damaged copy is fetched again", path=str(path))
            self._metrics.scrubbed_files.labels(outcome).inc()


def _scrub(path: Path, digest: FileDigest, pause_after: Callable[[int], None]) -> ScrubOutcome:
    try:
        verify_slowly(path, digest, pause_after)
    except DamagedFile as damage:
        log.error("a served file is damaged", error=str(damage))
        return "damaged"
    except FileNotFoundError:  # a merge replaced the segment, and the file was collected
        return "gone"
    except OSError as error:
        log.error("a served file cannot be read", path=str(path), error=str(error))
        return "unreadable"
    return "good"
