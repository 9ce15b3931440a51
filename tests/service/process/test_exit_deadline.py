"""A process that has been told to end does so, whatever hangs in it."""

from __future__ import annotations

import subprocess
import sys

HANGS = """
import threading
from service.process.exit_deadline import ExitDeadline
deadline = ExitDeadline()
threading.Thread(target=threading.Event().wait, name="stuck").start()
deadline.start({seconds})
{then}
"""


def run(seconds: float, then: str = "") -> subprocess.CompletedProcess[str]:
    code = HANGS.format(seconds=seconds, then=then)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_thread_that_hangs_ends_with_the_process_and_is_named() -> None:
    ended = run(0.1)
    assert ended.returncode == 1
    assert "stuck" in ended.stdout + ended.stderr


def test_an_end_in_time_is_not_cut_short() -> None:
    assert (
        run(30, "deadline.close()\nfrom service.process.exit_deadline import leave\nleave(0)").returncode == 0
    )
