"""How much memory is free, by the machine and by the limits of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.process.memory import free_bytes

MEBIBYTE = 2**20


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:       8000000 kB\nMemFree: 1 kB\nMemAvailable:    4096000 kB\n")
    return path


def group(root: Path, limit: str, used: int, *, droppable: int = 0) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "memory.max").write_text(f"{limit}\n")
    (root / "memory.current").write_text(f"{used}\n")
    (root / "memory.stat").write_text(f"anon 5\ninactive_file {droppable}\n")
    return root


def own(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "own"
    path.write_text(text)
    return path


def test_without_a_limit_the_machine_tells_what_is_free(tmp_path: Path, machine: Path) -> None:
    groups = group(tmp_path / "groups", "max", 7)
    assert free_bytes(machine, groups, own(tmp_path, "0::/\n")) == 4_096_000 * 1024


def test_the_least_of_all_groups_above_counts(tmp_path: Path, machine: Path) -> None:
    groups = tmp_path / "groups"
    group(groups / "pods", str(900 * MEBIBYTE), 500 * MEBIBYTE)
    group(groups / "pods" / "one", str(800 * MEBIBYTE), 100 * MEBIBYTE)
    assert free_bytes(machine, groups, own(tmp_path, "0::/pods/one\n")) == 400 * MEBIBYTE


def test_pages_of_files_that_were_read_once_are_free(tmp_path: Path, machine: Path) -> None:
    groups = group(tmp_path / "groups", str(600 * MEBIBYTE), 500 * MEBIBYTE, droppable=200 * MEBIBYTE)
    assert free_bytes(machine, groups, own(tmp_path, "0::/\n")) == 300 * MEBIBYTE


def test_version_1_of_control_groups_is_read(tmp_path: Path, machine: Path) -> None:
    groups = tmp_path / "groups"
    (groups / "memory").mkdir(parents=True)
    (groups / "memory" / "memory.limit_in_bytes").write_text(str(500 * MEBIBYTE))
    (groups / "memory" / "memory.usage_in_bytes").write_text(str(600 * MEBIBYTE))
    assert free_bytes(machine, groups, own(tmp_path, "4:memory:/\n")) == 0


def test_a_machine_that_tells_nothing_is_not_guessed_at(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "none", tmp_path / "none", tmp_path / "none") is None
