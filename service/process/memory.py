"""How much memory this process may still take, which can be less than the machine has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from service.process.processors import CONTROL_GROUPS, OWN_GROUPS

MACHINE = Path("/proc/meminfo")


def free_bytes(machine: Path = MACHINE, groups: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> int | None:
    """Return the least that the machine and the process's control groups leave; None if nothing tells it.

    Pages of files that were read once count as free, because the kernel drops them when memory is needed.
    """
    found = [*_free_of_machine(machine), *_free_of_groups(groups, own)]
    return max(0, min(found)) if found else None


def _free_of_machine(machine: Path) -> Iterator[int]:
    for line in _text_of(machine).splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1]:
            yield int(value.split()[0]) * 1024


def _free_of_groups(groups: Path, own: Path) -> Iterator[int]:
    """Yield what is free in the process's control groups and in all groups above them."""
    for line in _text_of(own).splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers == "":
            yield from _free_of_group(groups, group, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            yield from _free_of_group(
                groups / "memory", group, "memory.limit_in_bytes", "memory.usage_in_bytes"
            )


def _free_of_group(root: Path, group: str, limit_name: str, used_name: str) -> Iterator[int]:
    own = PurePosixPath(group.lstrip("/"))
    for directory in (own, *own.parents):
        limit, used = (_text_of(root / directory / name).strip() for name in (limit_name, used_name))
        if limit.isdecimal() and used.isdecimal():
            yield int(limit) - int(used) + _droppable(root / directory / "memory.stat")


def _droppable(stat: Path) -> int:
    for line in _text_of(stat).splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdecimal():
            return int(value)
    return 0


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
