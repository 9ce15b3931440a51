import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from cliptide.__main__ import main
from cliptide.terminal import connections, waiting
from cliptide.terminal.waiting import waiting_told
from fakes.shards import create_index


def test_what_a_command_waits_for_is_said_while_it_waits() -> None:
    said, is_said = list[str](), threading.Event()

    def say(line: str) -> None:
        said.append(line)
        is_said.set()

    with waiting_told("Kafka at broker:9092", after_seconds=0.0, say=say):
        assert is_said.wait(30)
    assert said == ["waiting for Kafka at broker:9092 …"]


def test_nothing_is_said_about_a_short_wait() -> None:
    said = list[str]()
    with waiting_told("Kafka", after_seconds=3600.0, say=said.append):
        pass
    assert said == []


@pytest.mark.parametrize(
    "command",
    [
        ("publish", "a.csv"),
        ("delete", "a"),
        ("dead-letters",),
        ("dead-letters", "--republish"),
        ("verify", "--index-root", "index"),
    ],
    ids=" ".join,
)
def test_every_command_says_that_it_waits_for_kafka_and_where_it_looks(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(waiting, "TOLD_AFTER_SECONDS", 0.05)
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("id,text\nboot,a red boot\n")
    create_index(Path("index"))
    environment = {"CLIPTIDE_QUERY_URL": "http://127.0.0.1:1"}
    result = CliRunner(env=environment).invoke(main, [*command, "--bootstrap-servers", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "waiting for Kafka at 127.0.0.1:1 …" in result.stderr
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: no answer from Kafka at 127.0.0.1:1")
    assert "Connection refused" in last
    assert last.endswith("see --bootstrap-servers")
