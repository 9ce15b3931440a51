"""Child processes: they write to a log file, end when told, and die with their parent."""

from __future__ import annotations

import ctypes
import errno
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
NUM_LOG_LINES = 20
STOP_PATIENCE_SECONDS = 20.0
_LOG_TAIL_BYTES = 2000
# Linux chooses ports from 32,768 on (ip_local_port_range), IANA's range begins at 49,152.
_PORTS_THE_SYSTEM_NEVER_CHOOSES = range(20_000, 32_768)


class ChildDied(Exception):
    """A child ended by itself; the message ends with the last lines of its log."""

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


def spawn(
    command: Sequence[str], log_path: Path, *, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a child and append its output to `log_path`. `environment` replaces this process's own.

    On Linux the kernel kills the child when the thread that called `spawn` ends. Call it from a
    thread that outlives the child.
    """
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C must reach the parent alone, which ends its children in order
            preexec_fn=_death_with_parent(),
        )


def end(process: subprocess.Popen[bytes], patience_seconds: float) -> None:
    """Ask the child to end, wait a little, then kill it."""
    process.terminate()
    try:
        process.wait(patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Return a loopback port that is free at this moment.

    The port lies outside the ranges from which the system chooses. Otherwise the system could give it
    to any connection before the child listens.
    """
    while True:
        with socket.socket() as probe:
            port = random.SystemRandom().choice(_PORTS_THE_SYSTEM_NEVER_CHOOSES)
            try:
                probe.bind((LOOPBACK, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return port


def accepts_connections(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def last_lines(path: Path, num_lines: int = NUM_LOG_LINES) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-num_lines:]


def read_tail(log_path: Path) -> str:
    """Return the end of a child's output, for an error message."""
    text = log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
    return text or "it wrote nothing"


def _death_with_parent() -> Callable[[], None] | None:
    """Return what the child runs before exec, to make the kernel kill it when its parent ends."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # before the fork, because a forked child must not load libraries
    set_parent_death_signal = 1

    def preexec() -> None:
        prctl(set_parent_death_signal, signal.SIGKILL)

    return preexec
