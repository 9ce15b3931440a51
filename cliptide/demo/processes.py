"""The demo's child processes: watched while they run, stopped in order."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from cliptide.demo.child_process import end, spawn

NUM_LOG_LINES = 20
STOP_PATIENCE_SECONDS = 20.0


class ChildDied(Exception):
    """A child ended that should be running; the message ends with the last lines of its log."""

    def __init__(self, name: str, log_lines: Sequence[str], exit_code: int | None = None) -> None:
        how = "" if exit_code is None else f" with exit code {exit_code}"
        super().__init__("\n".join((f"the {name} ended{how}; its last lines:", *log_lines)))
        self.name = name
        self.exit_code = exit_code


class Child:
    """One Python module run as a process; everything it writes goes to `log_path`."""

    def __init__(self, name: str, module: str, environment: Mapping[str, str], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._process = spawn([sys.executable, "-m", module], log_path, environment=environment)

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise `ChildDied` unless the process runs."""
        exit_code = self._process.poll()
        if exit_code is not None:
            raise ChildDied(self.name, last_lines(self.log_path), exit_code)

    def ask_to_end(self) -> None:
        self._process.terminate()

    def stop(self, patience_seconds: float = STOP_PATIENCE_SECONDS) -> int:
        """Ask it to end, wait, then kill it; return its exit code."""
        end(self._process, patience_seconds)
        return self._process.returncode


def last_lines(path: Path, num_lines: int = NUM_LOG_LINES) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:]
