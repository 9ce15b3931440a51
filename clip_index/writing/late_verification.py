"""Verifies beside the writers what takeovers have deferred: one thread for all shards of a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from clip_index.errors import DamagedFile
from clip_index.writing.deferred_segment import DeferredSegment

THREAD = "late-verification"
_AFTER_AN_ERROR_SECONDS = 1.0
_PATIENCE_SECONDS = 1.0


class LateVerification:
    """The thread lives while there is something to verify. Writers call the methods, each for its own shard.

    The thread rests after each block for as long as the block took. So it takes at most half of a disk and
    half of a core, however many shards a consumer has just taken over.
    """

    def __init__(self, after_error_seconds: float = _AFTER_AN_ERROR_SECONDS) -> None:
        self._after_error_seconds = after_error_seconds
        self._lock = threading.Lock()
        self._deferred: dict[str, tuple[DeferredSegment, ...]] = {}
        self._errors: dict[str, Exception] = {}
        self._retry_at: dict[str, float] = {}
        self._thread: threading.Thread | None = None

    def go_on(self, shard: str, deferred: Sequence[DeferredSegment]) -> None:
        """Say what is deferred now, and raise what was found since the last call.

        That is `DamagedFile`, each time while the segment is there, or an `OSError` once. Some time
        later a further call begins the segment again.
        """
        with self._lock:
            error = self._errors.pop(shard, None)
            if deferred:
                self._deferred[shard] = tuple(deferred)
            else:
                self._deferred.pop(shard, None)
            if error is not None:
                raise error
            self._begin_thread()
        for segment in deferred:
            segment.raise_damage()

    def forget(self, shard: str) -> None:
        """Stop verifying a shard at the next block, because it is closed."""
        with self._lock:
            for known in (self._deferred, self._errors, self._retry_at):
                known.pop(shard, None)

    def close(self) -> None:
        """Stop verifying at the next block. A disk that does not answer keeps nobody from going on."""
        with self._lock:
            self._deferred.clear()
            thread = self._thread
        if thread is not None:
            thread.join(_PATIENCE_SECONDS)

    def _begin_thread(self) -> None:
        if self._thread is None and self._next() is not None:
            self._thread = threading.Thread(target=self._run, name=THREAD, daemon=True)
            self._thread.start()

    def _next(self) -> tuple[str, DeferredSegment] | None:
        """Return the smallest segment that may be verified now; small ones merge first."""
        now = time.monotonic()
        due = [
            (shard, segment)
            for shard, segments in self._deferred.items()
            if shard not in self._errors and now >= self._retry_at.get(shard, now)
            for segment in segments
            if not (segment.is_whole or segment.is_damaged)
        ]
        return min(due, key=lambda one: (one[1].entry.size_bytes, one[0], one[1].segment_id), default=None)

    def _run(self) -> None:
        while True:
            with self._lock:
                found = self._next()
                if found is None:
                    self._thread = None
                    return
            shard, segment = found
            try:
                self._verify(shard, segment)
            except DamagedFile:
                continue  # the segment knows, and raises it at the writer's next turn
            except Exception as error:  # noqa: BLE001 - the writer's thread decides what follows from it
                self._failed(shard, error)

    def _verify(self, shard: str, segment: DeferredSegment) -> None:
        began = time.monotonic()
        for _ in segment.verify():
            time.sleep(time.monotonic() - began)
            if segment not in self._deferred.get(shard, ()):
                return
            began = time.monotonic()

    def _failed(self, shard: str, error: Exception) -> None:
        with self._lock:
            if shard in self._deferred:
                self._errors[shard] = error
                self._retry_at[shard] = time.monotonic() + self._after_error_seconds
