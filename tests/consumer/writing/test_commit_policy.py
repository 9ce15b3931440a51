"""When a shard commits."""

from __future__ import annotations

from consumer.writing.commit_policy import CommitPolicy


def test_commits_stretch_while_merging_falls_behind() -> None:
    policy = CommitPolicy(interval_seconds=0.2)
    assert [policy.interval(debt) for debt in (-1, 0, 4, 1000)] == [0.2, 0.2, 1.0, 5.0]
