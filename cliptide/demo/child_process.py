"""Child processes that write to a log file, end when told, and die with their parent."""

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
_LOG_TAIL_BYTES = 2000
_UNCHOSEN_PORTS = range(20_000, 32_768)  # below Linux's ip_local_port_range, and IANA's from 49,152 on


def spawn(
    command: Sequence[str], log_path: Path, *, environment: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a child whose output is appended to `log_path`; `environment` replaces ours when given.

    On Linux the kernel kills the child when the thread that started it ends, so start it
    from one that lives as long as the child shall.
    """
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a Ctrl-C is for the parent, which ends its children in order
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

    Not one that the system would choose: until the child listens, any connection could be given that.
    """
    while True:
        with socket.socket() as probe:
            port = random.SystemRandom().choice(_UNCHOSEN_PORTS)
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


def read_tail(log_path: Path) -> str:
    """Return the end of a child's output, for an error message."""
    text = log_path.read_bytes()[-_LOG_TAIL_BYTES:].decode("utf-8", "replace").strip()
    return text or "it wrote nothing"


def _death_with_parent() -> Callable[[], None] | None:
    """Return what a child runs before exec so that the kernel kills it when its parent is gone."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: a forked child must not load libraries
    set_parent_death_signal = 1

    def preexec() -> None:
        prctl(set_parent_death_signal, signal.SIGKILL)

    return preexec
