"""Up to which time a shard covers its log. Pure.

A watermark is a time T such that every record with a timestamp at or before T is
covered by the committed next offset. Kafka orders records by offset, not by time:
producers set the timestamps, and late ones exist. So, as stream processors do, we
assume that a record comes into the log at most `margin_ms` after its timestamp:

- caught up (at wall clock t the log ended at a committed offset): T = t − margin;
- otherwise: T = the newest covered timestamp − margin, no later than its commit − margin,
  so that a producer's clock in the future promises nothing of what comes later.

A watermark never goes back. A record later than the margin is searchable when it is
covered, like any other; only the statement about its time was too early.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class WatermarkClock:
    """Follows one shard; all times are milliseconds since 1970, UTC."""

    margin_ms: int
    newest_ms: int | None = None
    _watermark_ms: int | None = None

    def covered(self, timestamp_ms: int, *, now_ms: int) -> None:
        """A record with this timestamp is committed now."""
        known_ms = min(timestamp_ms, now_ms)
        self.newest_ms = known_ms if self.newest_ms is None else max(self.newest_ms, known_ms)

    def advance(self, *, caught_up_at_ms: int | None) -> int | None:
        """Return the watermark if it moved since it was last returned, else None."""
        candidates = [ms for ms in (caught_up_at_ms, self.newest_ms) if ms is not None]
        if not candidates:
            return None
        watermark = max(candidates) - self.margin_ms
        if self._watermark_ms is not None and watermark <= self._watermark_ms:
            return None
        self._watermark_ms = watermark
        return watermark
