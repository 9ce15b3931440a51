"""Which segments are merged: a table of sizes and what follows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clip_index.generations.manifest import Manifest, SegmentEntry, TombstonesEntry
from clip_index.storage.file_digest import FileDigest
from clip_index.writing.merge_policy import MergeLane, MergeSettings, merge_debt, niceness, plan_merges

SETTINGS = MergeSettings(merge_factor=4, floor_entries=10, max_entries=1000, large_entries=300)


def manifest(sizes: list[int], dead: dict[int, tuple[int, int]] | None = None) -> Manifest:
    """Segments `0`, `1`, … of these sizes; `dead` maps a segment to its dead rows and when they died."""
    return Manifest(
        generation=1,
        writer_epoch=1,
        writer_id="writer",
        nonce="nonce",
        first_offset=0,
        next_offset=0,
        segments=tuple(SegmentEntry(str(i), size, 0, {"image": size}, {}) for i, size in enumerate(sizes)),
        tombstones={
            str(i): TombstonesEntry(num_dead, died_ms) for i, (num_dead, died_ms) in (dead or {}).items()
        },
    )


def planned(shard: Manifest, busy: tuple[str, ...] = (), now_ms: int = 0) -> list[tuple[str, ...]]:
    return [tuple(sorted(p.segment_ids)) for p in plan_merges(shard, SETTINGS, busy=busy, now_ms=now_ms)]


@pytest.mark.parametrize(
    ("sizes", "plans"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([5, 5, 5], [], id="fewer than the factor"),
        pytest.param([5, 5, 5, 5], [("0", "1", "2", "3")], id="a full tier"),
        pytest.param([5, 5, 200, 200], [], id="two tiers, none full"),
        pytest.param([400, 400, 400, 400], [("0", "1")], id="no further than the cap"),
        pytest.param([900, 900, 900, 900], [], id="at the cap they rest"),
    ],
)
def test_a_tier_is_merged_when_it_is_full(sizes: list[int], plans: list[tuple[str, ...]]) -> None:
    assert planned(manifest(sizes)) == plans


def sized(*sizes: tuple[int, int]) -> Manifest:
    """Segments with these numbers of entries and of bytes."""
    entries = [
        SegmentEntry(str(i), num, 0, {"image": num}, {"contents.arrow": FileDigest(num_bytes, "0" * 32)})
        for i, (num, num_bytes) in enumerate(sizes)
    ]
    return replace(manifest([]), segments=tuple(entries))


@pytest.mark.parametrize(
    ("shard", "plans"),
    [
        pytest.param(sized(*[(50, 10_000)] * 4), [("0", "1", "2", "3")], id="at the bound"),
        pytest.param(sized(*[(50, 15_000)] * 4), [("0", "1")], id="no further than the bound"),
        pytest.param(sized((50, 30_000), *[(60, 20_000)] * 3), [("1", "2")], id="the largest last"),
        pytest.param(sized(*[(50, 30_000)] * 4), [], id="at the bound they rest"),
    ],
)
def test_the_bytes_of_a_merge_are_bounded(shard: Manifest, plans: list[tuple[str, ...]]) -> None:
    settings = replace(SETTINGS, max_bytes=40_000)
    found = plan_merges(shard, settings, busy=(), now_ms=0)
    assert [tuple(sorted(plan.segment_ids)) for plan in found] == plans
    assert (merge_debt(shard, settings) > 0) <= bool(plans)


def test_after_a_merge_too_large_for_the_memory_half_of_it_is_the_most() -> None:
    shard = manifest([400, 500])
    assert SETTINGS.halved(shard.segments).max_entries == 450
    assert SETTINGS.halved(manifest([40, 50]).segments).max_entries == SETTINGS.large_entries
    assert SETTINGS.halved(manifest([900]).segments) == SETTINGS, "one segment cannot be halved"


def test_busy_segments_are_left_out() -> None:
    assert planned(manifest([5, 5, 5, 5]), busy=("2",)) == []


@pytest.mark.parametrize(
    ("dead", "now_ms", "plans"),
    [
        pytest.param({0: (40, 0)}, 0, [("0",)], id="too many dead rows"),
        pytest.param({0: (1, 0)}, 1000, [], id="a few, lately"),
        pytest.param({0: (1, 0)}, 25 * 3600 * 1000, [("0",)], id="a few, for too long"),
    ],
)
def test_dead_rows_force_a_rewrite(
    dead: dict[int, tuple[int, int]], now_ms: int, plans: list[tuple[str, ...]]
) -> None:
    assert planned(manifest([100], dead), now_ms=now_ms) == plans


DAY_MS = 24 * 3600 * 1000


@pytest.mark.parametrize(
    ("sizes", "dead", "plans"),
    [
        pytest.param([5] * 4, {0: (4, 0)}, [("0", "1", "2", "3")], id="the merge of its tier takes it along"),
        pytest.param(
            [5] * 4 + [100], {4: (40, 0)}, [("0", "1", "2", "3"), ("4",)], id="it waits for merges of tiers"
        ),
        pytest.param([400] * 4, {3: (399, 0)}, [("0", "1"), ("3",)], id="a full merge leaves it out"),
    ],
)
def test_a_segment_with_many_dead_rows_takes_the_lane_from_no_merge_of_a_tier(
    sizes: list[int], dead: dict[int, tuple[int, int]], plans: list[tuple[str, ...]]
) -> None:
    assert planned(manifest(sizes, dead)) == plans


def test_rows_that_must_be_erased_by_now_come_first() -> None:
    shard = manifest([5] * 4 + [100, 100], {4: (40, DAY_MS), 5: (1, 0)})
    assert planned(shard, now_ms=DAY_MS) == [("5",), ("0", "1", "2", "3"), ("4",)]


def test_where_contents_are_often_replaced_the_segments_stay_few() -> None:
    """Each small segment soon has many dead rows. The lane runs one merge for every two commits."""
    sizes, dead = [5], dict[int, tuple[int, int]]()
    for commit in range(400):
        sizes.append(5)
        dead[len(sizes) - 2] = (2, 0)
        if commit % 2:
            [chosen, *_] = planned(manifest(sizes, dead)) or [()]
            sizes, dead = after_merge(sizes, dead, [int(i) for i in chosen])
    assert len(sizes) <= 4 * SETTINGS.merge_factor


def after_merge(
    sizes: list[int], dead: dict[int, tuple[int, int]], chosen: list[int]
) -> tuple[list[int], dict[int, tuple[int, int]]]:
    """Return the segments when the chosen ones are one without dead rows, which stands last."""
    if not chosen:
        return sizes, dead
    kept = [number for number in range(len(sizes)) if number not in chosen]
    merged = sum(sizes[number] - dead.get(number, (0, 0))[0] for number in chosen)
    after = {kept.index(number): one for number, one in dead.items() if number in kept}
    return [*(sizes[number] for number in kept), merged], after


def test_large_merges_are_told_apart() -> None:
    [plan] = plan_merges(manifest([90, 90, 90, 90]), SETTINGS, busy=(), now_ms=0)
    assert plan.lane is MergeLane.LARGE


@pytest.mark.parametrize(
    ("sizes", "debt"),
    [
        pytest.param([5, 5, 5], 0, id="at rest"),
        pytest.param([5] * 7, 4, id="behind"),
        pytest.param([900] * 20, 0, id="segments at the cap are no debt"),
    ],
)
def test_debt_is_what_merging_still_has_to_do(sizes: list[int], debt: int) -> None:
    assert merge_debt(manifest(sizes), SETTINGS) == debt


def test_merges_get_more_of_the_processor_the_more_segments_there_are() -> None:
    settings = MergeSettings(max_debt=80)
    assert [niceness(debt, settings) for debt in (0, 9, 10, 19, 20, 1000)] == [10, 10, 5, 5, 0, 0]


def test_at_any_debt_a_merge_is_due_that_lowers_it() -> None:
    """Whoever waits for merges at the bound waits for ever if none is planned."""
    for sizes in ([5] * 30, [400] * 30, [5] * 11 + [90] * 12 + [390] * 13, [900] * 9 + [499] * 20):
        shard = manifest(sizes)
        assert merge_debt(shard, SETTINGS) > 0
        assert planned(shard) != []
