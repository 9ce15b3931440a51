"""Up to which time a shard covers its log. Pure.

A watermark is a time T such that the committed next offset covers every record with a timestamp at
or before T. Kafka orders records by offset, not by time, and producers set the timestamps, so some
records are late. As stream processors do, we assume that a record comes into the log at most
`margin_ms` after its timestamp:

- If the shard has caught up (at wall-clock time t the log ended at a committed offset), T = t − margin.
- Otherwise T is the newest committed timestamp − margin, but at most the time of its commit − margin.
  So a producer's clock in the future does not move the watermark beyond records still to come.

A watermark never goes back. A record that is later than the margin becomes searchable like any
other; only the watermark was too early for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class WatermarkClock:
    """Follows one shard. All times are milliseconds since 1970, UTC."""

    margin_ms: int
    newest_ms: int | None = None
    _watermark_ms: int | None = None

    def covered(self, timestamp_ms: int, *, now_ms: int) -> None:
        """A record with this timestamp is committed now."""
        known_ms = min(timestamp_ms, now_ms)
        self.newest_ms = known_ms if self.newest_ms is None else max(self.newest_ms, known_ms)

    def after(self, timestamps_ms: Iterable[int], *, now_ms: int) -> int | None:
        """Return the watermark of a commit that covers these records as well; None if nothing is known."""
        known = [min(timestamp_ms, now_ms) for timestamp_ms in timestamps_ms]
        if self.newest_ms is not None:
            known.append(self.newest_ms)
        return max(max(known) - self.margin_ms, 0) if known else None

    def advance(self, *, caught_up_at_ms: int | None) -> int | None:
        """Return the watermark if it has moved since it was last returned, otherwise None."""
        candidates = [ms for ms in (caught_up_at_ms, self.newest_ms) if ms is not None]
        if not candidates:
            return None
        watermark = max(candidates) - self.margin_ms
        if self._watermark_ms is not None and watermark <= self._watermark_ms:
            return None
        self._watermark_ms = watermark
        return watermark
