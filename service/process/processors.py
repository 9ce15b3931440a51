"""How many processors this process may use, which can be fewer than the machine has."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def num_processors(groups: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> int:
    """Return the number by the process's affinity and by the limits of its control groups, at least 1.

    A container that may use two of 64 processors sees all 64, and its limit is a quota of time.
    """
    return max(1, min([_num_by_affinity(), *(math.ceil(quota) for quota in _quotas(groups, own))]))


def _num_by_affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Yield the quotas, in processors, of the process's control groups and of all groups above them."""
    for line in _text_of(own).splitlines():
        controllers, _, group = line.partition(":")[2].partition(":")
        if controllers == "":  # version 2, or the mixed form, where version 2 has no limits
            yield from _quotas_of(groups, group, "cpu.max")
        elif "cpu" in controllers.split(","):
            yield from _quotas_of(groups / "cpu", group, "cpu.cfs_quota_us", "cpu.cfs_period_us")


def _quotas_of(root: Path, group: str, *names: str) -> Iterator[float]:
    """A container may see its own group as the root; the path from outside then does not exist."""
    own = PurePosixPath(group.lstrip("/"))
    for directory in (own, *own.parents):
        limits = " ".join(_text_of(root / directory / name) for name in names).split()
        if len(limits) == 2 and all(limit.isdecimal() and int(limit) > 0 for limit in limits):
            yield int(limits[0]) / int(limits[1])


def _text_of(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
