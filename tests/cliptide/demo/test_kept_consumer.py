import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cliptide.demo.child_process import Child
from cliptide.demo.kept_consumer import MAX_RESTARTS, ConsumerStopped, KeptConsumer
from tests.event_log.event_logs import wait_until

Start = Callable[[str], KeptConsumer]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a module of the given code in the consumer's place."""
    started: list[KeptConsumer] = []

    def start_module(code: str) -> KeptConsumer:
        (tmp_path / "stand_in.py").write_text(code)
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        kept = KeptConsumer(lambda: Child("consumer", "stand_in", environment, tmp_path / "consumer.log"))
        started.append(kept)
        return kept

    yield start_module
    for kept in started:
        kept.stop()


def has_ended(pid: int) -> bool:
    """Whether the child has ended. It is left to `check` to learn of it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def test_a_consumer_that_was_killed_is_started_again(start: Start) -> None:
    kept = start("import time; time.sleep(600)")
    kept.check()
    first = kept.pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: has_ended(first))
    kept.check()
    assert kept.pid != first
    kept.check()


def test_a_consumer_that_refuses_to_go_on_is_not_started_again(start: Start) -> None:
    kept = start("import sys; print('flood', flush=True); sys.exit(6)")
    wait_until(lambda: has_ended(kept.pid))
    for _ in range(2):
        with pytest.raises(ConsumerStopped, match=r"ended with exit code 6; its last lines:\nflood"):
            kept.check()


def test_a_consumer_that_always_crashes_is_given_up(start: Start) -> None:
    kept = start("import os; os._exit(1)")
    for _ in range(MAX_RESTARTS):
        wait_until(lambda: has_ended(kept.pid))
        kept.check()
    wait_until(lambda: has_ended(kept.pid))
    with pytest.raises(ConsumerStopped):
        kept.check()
