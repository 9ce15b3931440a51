"""When a shard commits, and how often it renews its watermark. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from clip_index.writing.merge_policy import MAX_DEBT
from consumer.backoff import Backoff

_LONGEST_INTERVAL_SECONDS = 5.0
_STRETCH_SECONDS = 0.2
"""Where commits are a second apart anyhow, as in a bucket, a few segments must not make that five seconds."""


@dataclass(frozen=True, slots=True)
class CommitPolicy:
    """A shard commits `interval_seconds` after the first uncommitted change, or earlier at `max_bytes`.

    While merging falls behind, each segment too many adds one more interval, at most 0.2 s, up to five
    seconds in all. At a debt of `max_merge_debt` segments nothing is committed until a merge has ended,
    because every segment is mapped by each process that opens the shard, and a process may have only so
    many mappings.
    `backoff` says how long a shard waits after its disk has failed.
    """

    interval_seconds: float = 0.2
    max_bytes: int = 32 * 1024 * 1024
    max_merge_debt: int = MAX_DEBT
    watermark_every_seconds: float = 1.0
    watermark_margin_seconds: float = 1.0
    backoff: Backoff = field(default_factory=Backoff)

    def interval(self, merge_debt: int) -> float:
        stretched = self.interval_seconds + max(merge_debt, 0) * min(self.interval_seconds, _STRETCH_SECONDS)
        return max(self.interval_seconds, min(stretched, _LONGEST_INTERVAL_SECONDS))

    def waits_for_merges(self, merge_debt: int) -> bool:
        return merge_debt >= self.max_merge_debt

    def is_due(self, *, age_seconds: float, num_bytes: int, merge_debt: int) -> bool:
        """Whether to commit changes of this age and size now.

        A shard that is given away has changes of infinite age. It commits them at any debt, because its
        next owner would only encode them again.
        """
        if self.waits_for_merges(merge_debt):
            return age_seconds == math.inf
        return age_seconds >= self.interval(merge_debt) or num_bytes >= self.max_bytes
