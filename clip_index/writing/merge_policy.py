"""Which segments to merge next: decided from their sizes alone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from clip_index.generations.manifest import Manifest, SegmentEntry


@dataclass(frozen=True, slots=True)
class MergeSettings:
    """`max_entries` caps a segment; one with more than `max_dead_share` dead rows, or with rows
    dead for `erase_within_seconds`, is rewritten alone."""

    merge_factor: int = 8
    floor_entries: int = 64
    max_entries: int = 1_000_000
    large_entries: int = 20_000
    max_dead_share: float = 0.3
    erase_within_seconds: float = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class MergePlan:
    """Segments to rewrite as one; large plans run apart from small ones."""

    segment_ids: tuple[str, ...]
    is_large: bool


def plan_merges(
    manifest: Manifest, settings: MergeSettings, *, busy: Collection[str], now_ms: int
) -> list[MergePlan]:
    """Return disjoint merges worth running now, most urgent first; `busy` segments are left out.

    Segments fall into tiers by the logarithm of their size (Lucene's TieredMergePolicy and
    LogMergePolicy work so): `merge_factor` of one tier become one of the next, so that a
    row is rewritten about log(rows) times.
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


def merge_debt(manifest: Manifest, settings: MergeSettings) -> int:
    """Return how many segments there are beyond what the tiers hold at rest.

    Segments that no other one fits beside are as they will stay, and no debt.
    """
    growing = [entry for entry in manifest.segments if 2 * entry.num_entries <= settings.max_entries]
    tiers = {_tier(entry, settings) for entry in growing}
    return max(0, len(growing) - (settings.merge_factor - 1) * max(1, len(tiers)))


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
    return MergePlan(tuple(e.segment_id for e in entries), num_entries >= settings.large_entries)


def _tier(entry: SegmentEntry, settings: MergeSettings) -> int:
    tier, bound = 0, settings.floor_entries
    while entry.num_entries >= bound:
        tier, bound = tier + 1, bound * settings.merge_factor
    return tier
