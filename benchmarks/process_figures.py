"""CPU time and peak memory of a process, as the Linux kernel counts them."""

from __future__ import annotations

import time
from pathlib import Path

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


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory that no file backs."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))
