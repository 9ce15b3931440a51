"""When a shard commits."""

from __future__ import annotations

import math

import pytest

from consumer.writing.commit_policy import CommitPolicy


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
