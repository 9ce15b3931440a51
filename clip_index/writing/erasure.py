"""When segments are rewritten only to erase deleted contents, so that a day's rewrites stay within a budget.

Everything here decides from numbers alone: it touches no file and no clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from clip_index.generations.manifest import Manifest

DEFAULT_BYTES_A_DAY = 100 * 2**30
EARLY_SHARE = 1 / 24
"""Of the promised time, which remains for the rewrite itself and until the former files are removed."""
_DAY_SECONDS = 24 * 3600.0
_ASK_HOLDS_SECONDS = 5.0
_SCHEDULE_HOLDS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class HeldSegment:
    """A segment that holds deleted contents, the oldest of which died at `oldest_dead_ms`."""

    segment_id: str
    size_bytes: int
    oldest_dead_ms: int


@dataclass(frozen=True, slots=True)
class ErasureBacklog:
    """What a shard still has to erase.

    `num_bytes` are those of the segments that hold deleted contents. `late_seconds` tells by how much the
    promise will be missed at the budget's rate, or has been missed; 0 while it will be kept.
    """

    num_bytes: int = 0
    oldest_seconds: float = 0.0
    late_seconds: float = 0.0


NOTHING_TO_ERASE = ErasureBacklog()


def segments_with_deleted(manifest: Manifest) -> list[HeldSegment]:
    """Return the segments that hold deleted contents, the oldest deletion first."""
    held = [
        HeldSegment(entry.segment_id, entry.size_bytes, dead.oldest_dead_ms)
        for entry in manifest.segments
        if (dead := manifest.tombstones.get(entry.segment_id)) is not None
    ]
    return sorted(held, key=lambda one: (one.oldest_dead_ms, one.segment_id))


def is_due(oldest_dead_ms: int, erase_within_seconds: float, now_ms: float) -> bool:
    """Tell whether a segment must be rewritten now, if no others wait for the budget before it."""
    return (now_ms - oldest_dead_ms) / 1000 >= erase_within_seconds * (1 - EARLY_SHARE)


class _Rewrite(NamedTuple):
    target: float
    deadline: float
    size_bytes: int
    shard: str


class ErasureBudget:
    """Spreads the rewrites of all shards of a process evenly, the oldest deletion first.

    A rewrite of `n` bytes uses the budget up for as long as the rate allows `n` bytes. So at most one segment
    more than the budget is rewritten in a day, and a process that begins anew may rewrite one at once.

    Segments are rewritten as late as the promise allows, because a rewrite then erases most at once. Where
    many are due at the same time, the first of them begins as much earlier as the others need.

    Owned by the thread that owns the shards. `now` may come from any clock. When the clock is set back, the
    wait ends.
    """

    def __init__(self, bytes_a_day: float = DEFAULT_BYTES_A_DAY) -> None:
        self._bytes_a_second = bytes_a_day / _DAY_SECONDS
        self._spent_at = 0.0
        self._spent_for = 0.0
        self._asks: dict[str, tuple[int, float]] = {}
        self._waiting: dict[str, tuple[float, Sequence[HeldSegment]]] = {}
        self._late_seconds: dict[str, float] = {}
        self._ahead_seconds = 0.0
        self._scheduled_at: float | None = None

    def tell(self, shard: str, waiting: Sequence[HeldSegment], erase_within_seconds: float) -> None:
        """Say which segments of a shard hold deleted contents and can be rewritten."""
        self._waiting[shard] = (erase_within_seconds, waiting)

    def forget(self, shard: str) -> None:
        """Another process has the shard, or nobody."""
        for known in (self._asks, self._waiting, self._late_seconds):
            known.pop(shard, None)
        self._scheduled_at = None

    def ahead_seconds(self, now: float) -> float:
        """Return how much earlier than alone the segment with the oldest deletion must be rewritten now."""
        self._schedule(now)
        return self._ahead_seconds

    def late_seconds(self, shard: str, now: float) -> float:
        """Return by how much a shard's segments will be rewritten too late at this rate; 0 if in time."""
        self._schedule(now)
        return self._late_seconds.get(shard, 0.0)

    def grants(self, shard: str, held: HeldSegment, now: float) -> bool:
        """Take what a rewrite needs from the budget; False if it must wait for its turn.

        Of several that ask, the one with the oldest deletion has its turn first. One that does not ask,
        because its merges fail or the lane is taken, lets the others go on after a few seconds.
        """
        known_ms, asked_at = self._asks.get(shard, (held.oldest_dead_ms, now))
        if held.oldest_dead_ms <= known_ms or not 0 <= now - asked_at < _ASK_HOLDS_SECONDS:
            self._asks[shard] = (held.oldest_dead_ms, now)
        if self._remaining(now) > 0 or self._is_asked_for_older(held.oldest_dead_ms, now):
            return False
        del self._asks[shard]
        self._spent_at, self._spent_for = now, held.size_bytes / self._bytes_a_second
        self._scheduled_at = None
        return True

    def _remaining(self, now: float) -> float:
        """Return how many seconds the budget is still used up."""
        age = now - self._spent_at
        return max(0.0, self._spent_for - age) if age >= 0 else 0.0

    def _is_asked_for_older(self, oldest_dead_ms: int, now: float) -> bool:
        return any(
            other_ms < oldest_dead_ms and 0 <= now - asked_at < _ASK_HOLDS_SECONDS
            for other_ms, asked_at in self._asks.values()
        )

    def _schedule(self, now: float) -> None:
        """Lay out all rewrites one after the other. That costs some time, so it holds for a second."""
        if self._scheduled_at is not None and 0 <= now - self._scheduled_at < _SCHEDULE_HOLDS_SECONDS:
            return
        self._scheduled_at = now
        self._late_seconds = {}
        first_target, slack = now, 0.0
        ends_at = now + self._remaining(now)
        for number, rewrite in enumerate(sorted(self._rewrites())):
            ends_at += rewrite.size_bytes / self._bytes_a_second
            first_target, slack = (first_target, slack) if number else (rewrite.target, inf)
            slack = min(slack, rewrite.target - ends_at)
            late_seconds = ends_at - rewrite.deadline
            self._late_seconds[rewrite.shard] = max(late_seconds, self._late_seconds.get(rewrite.shard, 0.0))
        self._ahead_seconds = max(0.0, first_target - now) if slack <= 0 else 0.0

    def _rewrites(self) -> Iterator[_Rewrite]:
        for shard, (within, waiting) in self._waiting.items():
            for held in waiting:
                died_at = held.oldest_dead_ms / 1000
                target = died_at + within * (1 - EARLY_SHARE)
                yield _Rewrite(target, died_at + within, held.size_bytes, shard)


def backlog_of(
    held: Iterable[HeldSegment], late_seconds: float, erase_within_seconds: float, now: float
) -> ErasureBacklog:
    """Sum up what a shard still has to erase. A segment that no merge can take counts as well."""
    segments = list(held)
    if not segments:
        return NOTHING_TO_ERASE
    oldest_seconds = max(0.0, now - min(one.oldest_dead_ms for one in segments) / 1000)
    return ErasureBacklog(
        num_bytes=sum(one.size_bytes for one in segments),
        oldest_seconds=oldest_seconds,
        late_seconds=max(late_seconds, oldest_seconds - erase_within_seconds, 0.0),
    )
