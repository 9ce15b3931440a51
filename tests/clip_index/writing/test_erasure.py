"""Deleted contents leave the disk in time, and no more is rewritten for that than the budget allows."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest

from clip_index.storage.index_roots import IndexRoot
from clip_index.writing.erasure import ErasureBudget, HeldSegment
from clip_index.writing.merge_policy import MergeSettings
from clip_index.writing.shard_writer import ShardWriter, WriterSettings
from fakes.inline_merges import InlineLanes
from fakes.shards import content, create_index, removal, take_over
from tests.clip_index.writing.test_merges_and_garbage import commit

GB = 10**9
DAY = 86_400.0
HOUR = 3600.0


@dataclass(frozen=True)
class Rewrite:
    """A rewrite of a simulation: when it began, and when the segment's oldest content had died."""

    segment_id: str
    began_at: float
    died_at: float


def simulate(
    budget: ErasureBudget, held: dict[str, list[HeldSegment]], *, seconds: float, step: float = 60.0
) -> list[Rewrite]:
    """Let shards ask as `ShardMerges` does; a rewrite is done at once."""
    rewrites = []
    now = 0.0
    while now < seconds:
        for shard, waiting in held.items():
            budget.tell(shard, list(waiting), DAY)
            for one in sorted(waiting, key=lambda held: held.oldest_dead_ms):
                due_at = one.oldest_dead_ms / 1000 + DAY * 23 / 24
                if due_at <= now + budget.ahead_seconds(now) and budget.grants(shard, one, now):
                    rewrites.append(Rewrite(one.segment_id, now, one.oldest_dead_ms / 1000))
                    waiting.remove(one)
        now += step
    return rewrites


def segments(num: int, *, size: int = GB, died_at: float = 0.0, apart: float = 0.0) -> list[HeldSegment]:
    return [HeldSegment(f"{died_at:.0f}-{n}", size, int((died_at + n * apart) * 1000)) for n in range(num)]


def test_what_is_deleted_everywhere_at_once_is_erased_within_the_day_by_an_even_use_of_the_budget() -> None:
    rewrites = simulate(ErasureBudget(100 * GB), {"a": segments(90)}, seconds=DAY)
    assert len(rewrites) == 90
    gaps = [later.began_at - earlier.began_at for earlier, later in itertools.pairwise(rewrites)]
    assert min(gaps) >= DAY / 100 - 60


def test_a_small_index_is_rewritten_as_late_as_the_promise_allows() -> None:
    [only] = simulate(ErasureBudget(100 * GB), {"a": segments(1, size=10**6)}, seconds=DAY)
    assert 22.9 * HOUR <= only.began_at <= 23.1 * HOUR


def test_a_budget_that_is_too_small_is_never_exceeded_and_erases_the_oldest_deletions_first() -> None:
    waiting = segments(50, apart=600.0)
    rewrites = simulate(ErasureBudget(10 * GB), {"a": list(reversed(waiting))}, seconds=3 * DAY)
    assert [one.segment_id for one in rewrites] == [one.segment_id for one in waiting[: len(rewrites)]]
    for day in (0.0, DAY, 2 * DAY):
        assert sum(day <= one.began_at < day + DAY for one in rewrites) <= 11


def test_shards_share_the_budget_and_the_oldest_deletion_goes_first_whichever_shard_holds_it() -> None:
    held = {"a": segments(20, died_at=5000.0, apart=60.0), "b": segments(20, apart=60.0)}
    rewrites = simulate(ErasureBudget(40 * GB), held, seconds=2 * DAY)
    assert [one.died_at for one in rewrites] == sorted(one.died_at for one in rewrites)
    assert len(rewrites) == 40


def test_a_shard_that_stops_asking_holds_the_others_up_for_seconds_only() -> None:
    budget = ErasureBudget(100 * GB)
    old, new = HeldSegment("old", GB, 0), HeldSegment("new", GB, 1000)
    assert budget.grants("a", HeldSegment("first", GB, 0), 0.0)
    assert not budget.grants("a", old, 863.0)
    assert not budget.grants("b", new, 865.0), "the older deletion has just asked"
    assert budget.grants("b", new, 869.0)


def test_a_clock_that_is_set_back_ends_the_wait() -> None:
    budget = ErasureBudget(1 * GB)
    assert budget.grants("a", HeldSegment("a", GB, 0), 10 * DAY)
    assert budget.grants("a", HeldSegment("b", GB, 0), 9 * DAY)


def test_the_promise_is_foreseen_to_be_missed_by_what_the_backlog_takes_longer() -> None:
    budget = ErasureBudget(10 * GB)
    budget.tell("a", segments(5), DAY)
    assert budget.late_seconds("a", 0.0) == 0.0
    budget.tell("a", segments(20), DAY)
    assert budget.late_seconds("a", 2.0) == pytest.approx(DAY + 2.0)
    assert budget.late_seconds("b", 2.0) == 0.0
    budget.forget("a")
    assert budget.late_seconds("a", 4.0) == 0.0


def held_shard(root: IndexRoot, lanes: InlineLanes, now: list[float], bytes_a_day: float) -> ShardWriter:
    """Three segments, in each of which a content is deleted."""
    lanes.erasure = ErasureBudget(bytes_a_day)
    merge = MergeSettings(merge_factor=100, max_dead_share=0.9, erase_within_seconds=DAY)
    index = create_index(root)
    settings = WriterSettings(merge=merge)
    writer = take_over(index, lanes=lanes, settings=settings, clock=lambda: now[0])
    for name in "abc":
        commit(writer, content(name), content(f"{name}-stays"))
    for name in "abc":
        now[0] += HOUR
        commit(writer, removal(name))
    return writer


def test_a_shard_rewrites_one_segment_after_the_other_and_tells_its_backlog(root: IndexRoot) -> None:
    now, lanes = [1_000_000.0], InlineLanes()
    writer = held_shard(root, lanes, now, bytes_a_day=100_000)
    lanes.release(is_released=True)
    before = writer.erasure_backlog
    assert before.num_bytes == sum(entry.size_bytes for entry in writer.manifest.segments[:3])
    assert (before.oldest_seconds, before.late_seconds) == (2 * HOUR, 0.0)
    num_held = []
    for _ in range(30):
        now[0] += HOUR
        for _ in range(3):
            writer.maintain()
        num_held.append(len(writer.manifest.tombstones))
    assert num_held[0] == 3
    assert num_held[-1] == 0
    assert {earlier - later for earlier, later in itertools.pairwise(num_held)} == {0, 1}
    assert writer.erasure_backlog.num_bytes == 0


def test_a_shard_whose_budget_does_not_suffice_says_by_how_much_it_will_be_late(root: IndexRoot) -> None:
    now, lanes = [1_000_000.0], InlineLanes()
    writer = held_shard(root, lanes, now, bytes_a_day=1000)
    now[0] += 2.0
    writer.maintain()
    assert writer.erasure_backlog.late_seconds > DAY


def test_a_segment_of_mostly_dead_rows_waits_for_no_budget(root: IndexRoot) -> None:
    now, lanes = [1_000_000.0], InlineLanes()
    lanes.erasure = ErasureBudget(1.0)
    settings = WriterSettings(merge=MergeSettings(merge_factor=100, max_dead_share=0.3))
    writer = take_over(create_index(root), lanes=lanes, settings=settings, clock=lambda: now[0])
    lanes.release(is_released=True)
    commit(writer, content("a"), content("b"))
    commit(writer, removal("a"))
    now[0] += 2 * DAY
    assert lanes.erasure.grants("other", HeldSegment("x", GB, 0), now[0])
    for _ in range(2):
        writer.maintain()
    assert not writer.manifest.tombstones
