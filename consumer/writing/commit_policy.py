"""When a shard commits, and how often it renews its watermark. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from clip_index.writing.merge_policy import MAX_DEBT
from consumer.backoff import Backoff

_LONGEST_INTERVAL_SECONDS = 5.0
_STRETCH_SECONDS = 0.2
"""Where commits are a second apart anyhow, as in a bucket, a few segments must not make that five seconds."""

_MOST_SAVED = 10.0
"""A query service opens what each commit has added. Beside 500 and 1,000 vectors a second in four shards, its
reloads take 3 to 11 % less CPU time with ten than with 600, which is a minute of twelve commits a second.
"""


@dataclass(frozen=True, slots=True)
class CommitPolicy:
    """A shard commits `interval_seconds` after the first uncommitted change, or earlier at `max_bytes`.

    While merging falls behind, each segment too many adds one more interval, at most 0.2 s, up to five
    seconds in all. At a debt of `max_merge_debt` segments nothing is committed until a merge has ended,
    because every segment is mapped by each process that opens the shard, and a process may have only so
    many mappings.
    A shard keeps its generations for minutes, and each commit lists them. With an interval below 0.2 s a
    shard that commits all the time would keep tens of thousands, and readers would open as many small
    segments, so `CommitPace` lengthens it.
    `backoff` says how long a shard waits after its disk has failed.
    """

    interval_seconds: float = 0.05
    max_bytes: int = 32 * 1024 * 1024
    max_merge_debt: int = MAX_DEBT
    watermark_every_seconds: float = 1.0
    watermark_margin_seconds: float = 1.0
    backoff: Backoff = field(default_factory=Backoff)

    def interval(self, merge_debt: int, *, is_quick: bool = True) -> float:
        """Return how long the first uncommitted change waits. `is_quick` is what `CommitPace` says."""
        base = self.interval_seconds if is_quick else max(self.interval_seconds, _STRETCH_SECONDS)
        stretched = base + max(merge_debt, 0) * min(base, _STRETCH_SECONDS)
        return max(base, min(stretched, _LONGEST_INTERVAL_SECONDS))

    def waits_for_merges(self, merge_debt: int) -> bool:
        return merge_debt >= self.max_merge_debt

    def is_due(self, *, age_seconds: float, num_bytes: int, merge_debt: int, is_quick: bool = True) -> bool:
        """Whether to commit changes of this age and size now.

        A shard that is given away has changes of infinite age. It commits them at any debt, because its
        next owner would only encode them again.
        """
        if self.waits_for_merges(merge_debt):
            return age_seconds == math.inf
        interval_seconds = self.interval(merge_debt, is_quick=is_quick)
        return age_seconds >= interval_seconds or num_bytes >= self.max_bytes


@dataclass(slots=True)
class CommitPace:
    """Whether a shard may commit at a short interval now. `now` is monotonic.

    It may as long as it has saved commits: it begins with the most that it can save, earns five a second,
    which is what an interval of 0.2 s makes, and each commit takes one. So a shard with few uploads always
    commits at once, a burst is committed quickly for about a second, and a shard that commits all the
    time keeps no more generations than at 0.2 s: 3,000 in ten minutes, where 0.05 s would leave 12,000.
    Listing those took 13 ms of CPU at each commit.
    """

    saved: float = _MOST_SAVED
    _earned_at: float | None = None

    def is_quick(self, now: float) -> bool:
        self._earn(now)
        return self.saved >= 1

    def committed(self, now: float) -> None:
        self._earn(now)
        self.saved = max(self.saved - 1, 0.0)

    def _earn(self, now: float) -> None:
        if self._earned_at is not None:
            self.saved = min(self.saved + (now - self._earned_at) / _STRETCH_SECONDS, _MOST_SAVED)
        self._earned_at = now
