"""The processors that a process may use are fewer than the machine's where a limit is set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.process.processors import num_processors

MANY = frozenset(range(64))


@pytest.fixture(autouse=True)
def _many_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: MANY, raising=False)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_without_a_limit_the_affinity_counts(tmp_path: Path) -> None:
    own = written(tmp_path / "own", "0::/\n")
    written(tmp_path / "groups" / "cpu.max", "max 100000\n")
    assert num_processors(tmp_path / "groups", own) == 64
    assert num_processors(tmp_path / "nothing", tmp_path / "nothing") == 64


@pytest.mark.parametrize(
    ("limit", "expected"), [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1)]
)
def test_a_quota_counts_and_is_rounded_up(tmp_path: Path, limit: str, expected: int) -> None:
    own = written(tmp_path / "own", "0::/a.slice/b.service\n")
    written(tmp_path / "groups" / "a.slice" / "b.service" / "cpu.max", limit)
    assert num_processors(tmp_path / "groups", own) == expected


def test_the_least_quota_of_all_groups_above_counts(tmp_path: Path) -> None:
    own = written(tmp_path / "own", "0::/a.slice/b.service\n")
    written(tmp_path / "groups" / "a.slice" / "b.service" / "cpu.max", "800000 100000")
    written(tmp_path / "groups" / "a.slice" / "cpu.max", "300000 100000")
    assert num_processors(tmp_path / "groups", own) == 3


def test_a_container_that_sees_its_own_group_as_the_root_finds_its_quota(tmp_path: Path) -> None:
    own = written(tmp_path / "own", "0::/docker/0123abcd\n")
    written(tmp_path / "groups" / "cpu.max", "400000 100000")
    assert num_processors(tmp_path / "groups", own) == 4


def test_the_quotas_of_the_older_control_groups_count(tmp_path: Path) -> None:
    own = written(tmp_path / "own", "7:memory:/x\n4:cpu,cpuacct:/docker/0123abcd\n0::/\n")
    written(tmp_path / "groups" / "cpu" / "cpu.cfs_quota_us", "500000\n")
    written(tmp_path / "groups" / "cpu" / "cpu.cfs_period_us", "100000\n")
    assert num_processors(tmp_path / "groups", own) == 5
    written(tmp_path / "groups" / "cpu" / "cpu.cfs_quota_us", "-1\n")
    assert num_processors(tmp_path / "groups", own) == 64
