"""What the kernel tells of a process: CPU time and peak memory (Linux)."""

from __future__ import annotations

import time
from pathlib import Path

_ALL_THREADS = 2  # Linux: a clock of a process is named by its id's complement and what it counts


def cpu_seconds(pid: int) -> float:
    """CPU time of a process's threads so far, without its children's."""
    return time.clock_gettime(~pid << 3 | _ALL_THREADS)


def forget_peak_memory(pid: int) -> None:
    """Begin a new peak of resident memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_memory_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
