import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cliptide.demo.child_process import Child, ChildDied, last_lines
from tests.consumer.running import PATIENCE_SECONDS
from tests.fixtures.processes import is_running

SLEEPER = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({exit_code}))
pathlib.Path("ready").touch()
time.sleep(60)
"""

DEAF = """
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path("ready").touch()
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def in_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start(code: str, tmp_path: Path) -> Child:
    (tmp_path / "child_under_test.py").write_text(code)
    return Child("sleeper", "child_under_test", dict(os.environ), tmp_path / "sleeper.log")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_child_is_asked_to_end_before_it_is_killed(tmp_path: Path) -> None:
    child = start(SLEEPER.format(exit_code=3), tmp_path)
    wait_for(tmp_path / "ready")
    child.check()
    assert child.stop() == 3
    assert child.stop() == 3  # stopping twice is stopping once


def test_a_child_that_does_not_end_is_killed(tmp_path: Path) -> None:
    child = start(DEAF, tmp_path)
    wait_for(tmp_path / "ready")
    assert child.stop(patience_seconds=0.1) == -signal.SIGKILL


def test_a_child_that_died_is_named_with_its_last_words(tmp_path: Path) -> None:
    child = start("print('first'); raise SystemExit('the disk is full')", tmp_path)
    child._process.wait(PATIENCE_SECONDS)
    with pytest.raises(ChildDied, match="sleeper ended with exit code 1") as raised:
        child.check()
    assert str(raised.value).endswith("first\nthe disk is full")


@pytest.mark.skipif(sys.platform != "linux", reason="children die with their parent: enabled on Linux")
def test_children_die_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "child_under_test.py").write_text(SLEEPER.format(exit_code=0))
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for(tmp_path / "ready")
        parent.kill()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


PARENT = f"""
import os, pathlib, sys, time
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from cliptide.demo.child_process import Child
print(Child("sleeper", "child_under_test", dict(os.environ), pathlib.Path("log")).pid, flush=True)
time.sleep(60)
"""


def test_only_the_last_lines_of_a_log_are_shown(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("\n".join(f"line {n}" for n in range(100)))
    assert last_lines(tmp_path / "log", 2) == ["line 98", "line 99"]
    assert last_lines(tmp_path / "none") == []
