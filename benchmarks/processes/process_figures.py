"""CPU time and peak memory of a process, as the Linux kernel counts them."""

from __future__ import annotations

import os
import time
from pathlib import Path

_SESSION, _TIMES = 3, range(11, 15)  # of /proc/…/stat, behind the name: own and children's times
_ALL_THREADS = 2  # Linux: the low bits of the clock of a process say what it counts; 2: all threads


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process's threads so far, without that of its children."""
    return time.clock_gettime(~pid << 3 | _ALL_THREADS)


def forget_peak_memory(pid: int) -> None:
    """Reset the peak of resident memory to the present value."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def session_cpu_seconds(pid: int) -> float:
    """Return the CPU time so far of a process that leads a session, and of its children, dead ones included.

    It is counted in the kernel's ticks, a hundredth of a second.
    """
    ticks = 0
    for directory in Path("/proc").iterdir():
        if not directory.name.isdigit():
            continue
        try:
            fields = (directory / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended, and its parent counts it
        if int(fields[_SESSION]) == pid:
            ticks += sum(int(fields[number]) for number in _TIMES)
    return ticks / os.sysconf("SC_CLK_TCK")


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory that no file backs."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
