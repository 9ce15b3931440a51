"""Verifies between commits what a takeover has deferred."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from clip_index.errors import DamagedFile
from clip_index.writing.deferred_segment import DeferredSegment

_SECONDS_OF_A_TURN = 0.005


class LateVerification:
    """Used by the writer's thread, for a few milliseconds at each of its turns."""

    def __init__(self) -> None:
        self._segment: DeferredSegment | None = None
        self._steps: Iterator[None] = iter(())

    def run(self, deferred: Sequence[DeferredSegment], seconds: float = _SECONDS_OF_A_TURN) -> None:
        """Go on with the smallest segment of those that are deferred now; small ones merge first.

        Raises `DamagedFile`, each time while the segment is there. After an `OSError` the segment is begun
        again.
        """
        if not deferred:
            return
        segment = min(deferred, key=lambda one: (one.entry.size_bytes, one.segment_id))
        if segment is not self._segment:
            self._segment, self._steps = segment, segment.verify()
        until = time.monotonic() + seconds
        try:
            for _ in self._steps:
                if time.monotonic() >= until:
                    return
        except (DamagedFile, OSError):
            self._segment = None
            raise
