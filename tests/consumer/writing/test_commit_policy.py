"""When a shard commits."""

from __future__ import annotations

import math

import pytest

from consumer.writing.commit_policy import CommitPace, CommitPolicy


def test_commits_stretch_while_merging_falls_behind() -> None:
    policy = CommitPolicy(interval_seconds=0.2)
    assert [policy.interval(debt) for debt in (-1, 0, 4, 1000)] == [0.2, 0.2, 1.0, 5.0]


def test_at_the_bound_nothing_commits_except_what_is_given_away() -> None:
    policy = CommitPolicy(interval_seconds=0.2, max_bytes=100, max_merge_debt=30)

    def is_due(merge_debt: int, age_seconds: float) -> bool:
        return policy.is_due(age_seconds=age_seconds, num_bytes=1000, merge_debt=merge_debt)

    assert [is_due(29, 3600.0), is_due(30, 3600.0), is_due(31, 3600.0)] == [True, False, False]
    assert is_due(31, math.inf)


def test_where_commits_are_far_apart_a_segment_too_many_adds_little() -> None:
    """In a bucket a debt of four segments had made five seconds of one."""
    policy = CommitPolicy(interval_seconds=1.0)
    assert policy.interval(0) == 1.0
    assert policy.interval(4) == pytest.approx(1.8)
    assert policy.interval(1000) == 5.0


def num_commits(seconds: float, *, uploads_per_second: float) -> int:
    """Count the commits of a shard that gets uploads at a steady rate, without merge debt."""
    policy, pace = CommitPolicy(interval_seconds=0.05), CommitPace()
    now, count, step = 0.0, 0, 1 / uploads_per_second
    while now < seconds:
        now += step + policy.interval(0, is_quick=pace.is_quick(now + step))
        pace.committed(now)
        count += 1
    return count


def test_a_shard_with_few_uploads_always_commits_at_once() -> None:
    policy, pace = CommitPolicy(interval_seconds=0.05), CommitPace()
    for second in range(3600):
        assert policy.interval(0, is_quick=pace.is_quick(second)) == 0.05
        for _ in range(4):
            pace.committed(second)


def test_a_shard_that_commits_all_the_time_keeps_hardly_more_generations_than_at_a_fifth_of_a_second() -> (
    None
):
    assert 2900 < num_commits(600, uploads_per_second=1000) <= 3010


def test_a_burst_is_committed_quickly_for_about_a_second() -> None:
    assert num_commits(1, uploads_per_second=1000) >= 14
    assert num_commits(10, uploads_per_second=1000) <= 65


def test_a_long_interval_is_not_changed_by_the_pace() -> None:
    pace = CommitPace(saved=0.0)
    assert not pace.is_quick(0.0)
    assert CommitPolicy(interval_seconds=1.0).interval(0, is_quick=False) == 1.0


def test_without_saved_commits_the_debt_adds_what_it_adds_at_a_fifth_of_a_second() -> None:
    policy = CommitPolicy(interval_seconds=0.05)
    assert policy.interval(4) == pytest.approx(0.25)
    assert policy.interval(4, is_quick=False) == CommitPolicy(interval_seconds=0.2).interval(4)
