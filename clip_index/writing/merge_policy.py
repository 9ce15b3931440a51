"""Which segments to merge next, and when to try a failed merge again.

Everything here decides from numbers alone: it touches no file and no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from clip_index.content import VectorForm
from clip_index.generations.manifest import Manifest, SegmentEntry
from clip_index.vectors.calibration import TARGET_RECALL
from clip_index.writing.erasure import DEFAULT_BYTES_A_DAY, is_due

MAX_DEBT = 128
"""A segment of format 1 takes about nine mappings, a pack up to three. Linux lets a process have 65,530
(`vm.max_map_count`)."""
MAX_ENTRIES = 4_000_000
DEFAULT_MAX_BYTES = 4 * 2**30
"""About 3.2 million contents with embeddings of 512 dimensions."""
LOWEST_PRIORITY = 10
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """When segments merge, and how large they may grow.

    A merged segment has at most `max_entries` entries, and its sources at most `max_bytes` together: the
    process that merges them takes about one and a half times as much memory. A segment that no merge takes
    is rewritten alone when more than `max_dead_share` of its rows are dead, or so that its oldest dead row is
    gone `erase_within_seconds` after it died. The process rewrites about `erase_bytes_a_day` for that alone.
    A merge of `large_entries` or more runs in the large lane. A search of a merged segment finds a share
    of `target_recall` of the ten best, in the mean. `max_debt` bounds the debt: whoever commits waits
    there, and merges have their full priority long before. `vectors` is what the lists of segments hold
    that are merged from now on.
    """

    merge_factor: int = 8
    floor_entries: int = 64
    max_entries: int = MAX_ENTRIES
    max_bytes: int = DEFAULT_MAX_BYTES
    large_entries: int = 20_000
    max_dead_share: float = 0.3
    erase_within_seconds: float = 24 * 3600.0
    erase_bytes_a_day: float = DEFAULT_BYTES_A_DAY
    target_recall: float = TARGET_RECALL
    max_debt: int = MAX_DEBT
    vectors: VectorForm = "fp16"

    def admits(self, sources: Collection[SegmentEntry]) -> bool:
        """Whether these segments may become one."""
        num_entries = sum(entry.num_entries for entry in sources)
        return num_entries <= self.max_entries and sum(one.size_bytes for one in sources) <= self.max_bytes

    def share_of(self, entry: SegmentEntry) -> float:
        """Return how large a segment is, as a share of the largest that may be."""
        return max(entry.num_entries / self.max_entries, entry.size_bytes / self.max_bytes)

    def halved(self, sources: Collection[SegmentEntry]) -> MergeSettings:
        """Return the settings after a merge for which the memory did not suffice: half of it is the most.

        Merges of the small lane stay. One segment cannot be halved.
        """
        num_entries = sum(entry.num_entries for entry in sources) // 2
        if len(sources) < 2 or num_entries >= self.max_entries:
            return self
        return replace(self, max_entries=max(self.large_entries, num_entries))


class MergeLane(Enum):
    """Large merges run apart, so that a small merge never waits for a large one."""

    SMALL = "small"
    LARGE = "large"


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Segments to rewrite as one, and the lane to do it in.

    One that `is_for_erasure` has no other reason, so the budget for erasing tells when it may begin.
    """

    segment_ids: tuple[str, ...]
    lane: MergeLane
    is_for_erasure: bool = False


def plan_merges(
    manifest: Manifest, settings: MergeSettings, *, busy: Collection[str], now_ms: int
) -> list[MergePlan]:
    """Return disjoint merges worth running now, most urgent first; none takes a `busy` segment.

    `now_ms` tells which dead rows must be erased by now, those that died first before all others.

    Segments fall into tiers by the logarithm of their size, as in Lucene's TieredMergePolicy
    and LogMergePolicy. `merge_factor` segments of one tier become one segment of the next.
    So a row is rewritten about log(rows) times.

    Dead rows that must be erased by now come first. Segments that have many dead rows come last, and only
    those that no merge of a tier takes: a merge drops dead rows as a rewrite does, and where contents are
    often replaced, rewrites one by one would take the lane for ever while the segments grow in number.
    """
    free = [entry for entry in manifest.segments if entry.segment_id not in busy]
    tiers = _plan_tiers(free, settings)
    taken = {segment_id for plan in tiers for segment_id in plan.segment_ids}
    rest = [entry for entry in free if entry.segment_id not in taken]
    mostly_dead = [entry for entry in rest if _has_many_dead(manifest, entry, settings)]
    overdue = [entry for entry in rest if _is_overdue(manifest, entry, settings, now_ms)]
    overdue.sort(key=lambda entry: manifest.tombstones[entry.segment_id].oldest_dead_ms)
    erased = [replace(_plan([e], settings), is_for_erasure=e not in mostly_dead) for e in overdue]
    return [*erased, *tiers, *_plan_alone([e for e in mostly_dead if e not in overdue], settings)]


def _plan_tiers(free: Sequence[SegmentEntry], settings: MergeSettings) -> list[MergePlan]:
    tiers: dict[int, list[SegmentEntry]] = {}
    for entry in free:
        tiers.setdefault(_tier(entry, settings), []).append(entry)
    full = [entries for _, entries in sorted(tiers.items()) if len(entries) >= settings.merge_factor]
    return [plan for entries in full for plan in _plan_tier(entries, settings)]


def _plan_alone(entries: Sequence[SegmentEntry], settings: MergeSettings) -> list[MergePlan]:
    return [_plan([entry], settings) for entry in entries]


def merge_debt(manifest: Manifest, settings: MergeSettings, *, without: Collection[str] = ()) -> int:
    """Return how many segments there are beyond what the tiers hold when no merge is due.

    A segment larger than half of the largest does not count, because it will not merge again. Nor do
    the segments `without` which merges do: whoever waits for the debt to fall would wait for ever.
    """
    growing = [
        entry
        for entry in manifest.segments
        if settings.admits([entry, entry]) and entry.segment_id not in without
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


def _is_overdue(manifest: Manifest, entry: SegmentEntry, settings: MergeSettings, now_ms: int) -> bool:
    dead = manifest.tombstones.get(entry.segment_id)
    return dead is not None and is_due(dead.oldest_dead_ms, settings.erase_within_seconds, now_ms)


def _has_many_dead(manifest: Manifest, entry: SegmentEntry, settings: MergeSettings) -> bool:
    dead = manifest.tombstones.get(entry.segment_id)
    return dead is not None and dead.num_dead / entry.num_contents > settings.max_dead_share


def _plan_tier(entries: Sequence[SegmentEntry], settings: MergeSettings) -> list[MergePlan]:
    chosen: list[SegmentEntry] = []
    for entry in sorted(entries, key=settings.share_of):
        if not settings.admits([*chosen, entry]):
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
