"""Which segments to merge next, and when to try a failed merge again.

Everything here decides from numbers alone: it touches no file and no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from clip_index.generations.manifest import Manifest, SegmentEntry
from clip_index.vectors.calibration import TARGET_RECALL

MAX_DEBT = 128
"""Each segment takes about nine mappings, and Linux lets a process have 65,530 (`vm.max_map_count`)."""
LOWEST_PRIORITY = 10
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """When segments merge, and how large they may grow.

    A merged segment has at most `max_entries` entries. A segment is rewritten alone when more
    than `max_dead_share` of its rows are dead, or when its oldest dead row died
    `erase_within_seconds` ago. A merge of `large_entries` or more runs in the large lane. A search of
    a merged segment finds a share of `target_recall` of the ten best, in the mean. `max_debt` bounds
    the debt: whoever commits waits there, and merges have their full priority long before.
    """

    merge_factor: int = 8
    floor_entries: int = 64
    max_entries: int = 1_000_000
    large_entries: int = 20_000
    max_dead_share: float = 0.3
    erase_within_seconds: float = 24 * 3600.0
    target_recall: float = TARGET_RECALL
    max_debt: int = MAX_DEBT


class MergeLane(Enum):
    """Large merges run apart, so that a small merge never waits for a large one."""

    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Segments to rewrite as one, and the lane to do it in."""

    segment_ids: tuple[str, ...]
    lane: MergeLane


def plan_merges(
    manifest: Manifest, settings: MergeSettings, *, busy: Collection[str], now_ms: int
) -> list[MergePlan]:
    """Return disjoint merges worth running now, most urgent first; none takes a `busy` segment.

    Segments fall into tiers by the logarithm of their size, as in Lucene's TieredMergePolicy
    and LogMergePolicy. `merge_factor` segments of one tier become one segment of the next.
    So a row is rewritten about log(rows) times.
    """
    free = [entry for entry in manifest.segments if entry.segment_id not in busy]
    rewrites = [entry for entry in free if _is_due(manifest, entry, settings, now_ms)]
    plans = [_plan([entry], settings) for entry in rewrites]
    taken = {entry.segment_id for entry in rewrites}
    tiers: dict[int, list[SegmentEntry]] = {}
    for entry in free:
        if entry.segment_id not in taken:
            tiers.setdefault(_tier(entry, settings), []).append(entry)
    for _, entries in sorted(tiers.items()):
        if len(entries) >= settings.merge_factor:
            plans.extend(_plan_tier(entries, settings))
    return plans


def merge_debt(manifest: Manifest, settings: MergeSettings, *, without: Collection[str] = ()) -> int:
    """Return how many segments there are beyond what the tiers hold when no merge is due.

    A segment larger than half of `max_entries` does not count, because it will not merge again. Nor do
    the segments `without` which merges do: whoever waits for the debt to fall would wait for ever.
    """
    growing = [
        entry
        for entry in manifest.segments
        if 2 * entry.num_entries <= settings.max_entries and entry.segment_id not in without
    ]
    tiers = {_tier(entry, settings) for entry in growing}
    return max(0, len(growing) - (settings.merge_factor - 1) * max(1, len(tiers)))


def niceness(debt: int, settings: MergeSettings) -> int:
    """Return the niceness of merges: the greater the debt, the lower it is and the more they get done.

    At rest merges yield to everything. From a quarter of `max_debt` on they are as important as commits,
    because a machine that other work keeps busy would otherwise never let them end.
    """
    num_eighths = 8 * debt // settings.max_debt
    return max(0, LOWEST_PRIORITY - LOWEST_PRIORITY // 2 * num_eighths)


def _is_due(manifest: Manifest, entry: SegmentEntry, settings: MergeSettings, now_ms: int) -> bool:
    dead = manifest.tombstones.get(entry.segment_id)
    if dead is None:
        return False
    share = dead.num_dead / entry.num_contents
    age_seconds = (now_ms - dead.oldest_dead_ms) / 1000
    return share > settings.max_dead_share or age_seconds >= settings.erase_within_seconds


def _plan_tier(entries: Sequence[SegmentEntry], settings: MergeSettings) -> list[MergePlan]:
    chosen: list[SegmentEntry] = []
    for entry in sorted(entries, key=lambda e: e.num_entries):
        if sum(e.num_entries for e in chosen) + entry.num_entries > settings.max_entries:
            break
        chosen.append(entry)
    return [_plan(chosen, settings)] if len(chosen) >= 2 else []


def _plan(entries: Sequence[SegmentEntry], settings: MergeSettings) -> MergePlan:
    num_entries = sum(entry.num_entries for entry in entries)
    lane = MergeLane.LARGE if num_entries >= settings.large_entries else MergeLane.SMALL
    return MergePlan(tuple(e.segment_id for e in entries), lane)


def _tier(entry: SegmentEntry, settings: MergeSettings) -> int:
    tier, bound = 0, settings.floor_entries
    while entry.num_entries >= bound:
        tier, bound = tier + 1, bound * settings.merge_factor
    return tier


@dataclass(slots=True)
class _Failures:
    count: int = 0
    latest_at: float = 0.0


def _no_failures() -> Mapping[MergeLane, _Failures]:
    return {lane: _Failures() for lane in MergeLane}


@dataclass(slots=True)
class MergeBackoff:
    """How long each lane of one shard waits after failed merges.

    The wait doubles with each failure, up to a minute. A merge that succeeds ends it.
    `now` may come from any clock. When the clock is set back, the wait ends.
    """

    _failures: Mapping[MergeLane, _Failures] = field(default_factory=_no_failures)

    def failed(self, lane: MergeLane, now: float) -> None:
        failures = self._failures[lane]
        failures.count += 1
        failures.latest_at = now

    def succeeded(self, lane: MergeLane) -> None:
        self._failures[lane].count = 0

    def is_due(self, lane: MergeLane, now: float) -> bool:
        failures = self._failures[lane]
        if not failures.count:
            return True
        wait = min(_FIRST_WAIT_SECONDS * 2.0 ** (min(failures.count, 32) - 1), _LONGEST_WAIT_SECONDS)
        return not 0 <= now - failures.latest_at < wait
