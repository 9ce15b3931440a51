"""With `--hold`, a consumer that only a person can help stays, instead of being started again and again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import consumer.__main__ as program
from clip_index.encoder.settings import EncoderSettings
from clip_index.errors import ClipIndexError, EncoderUnavailable, Fenced
from cliptide.demo.child_process import free_port
from consumer.__main__ import run
from consumer.errors import DeadLetterFlood
from consumer.settings import read_settings
from consumer.starting.held import health_address
from consumer.starting.refusals import WANTS_A_PERSON
from event_log.errors import TopicMissing
from fakes.hash_encoder import HashEncoder
from tests.consumer.running import eventually

OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def ask(path: str, port: int) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(program.Signals, "listen", lambda self: None)
    port = free_port()
    monkeypatch.setenv("CLIPTIDE_CONSUMER__HEALTH_PORT", str(port))
    return port


def test_a_held_consumer_is_live_and_says_why_it_is_not_ready(
    monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    def find_a_flood(settings: EncoderSettings) -> HashEncoder:
        raise DeadLetterFlood(60, 100, "undecodable")

    answers = []
    paths = ("/livez", "/readyz", "/metrics")
    monkeypatch.setattr(
        program.Signals, "wait", lambda self: answers.extend(ask(path, port) for path in paths)
    )
    assert run(find_a_flood, ["--hold"]) == 6
    (live, _), (ready, why), (_, metrics) = answers
    assert (live, ready) == (200, 503)
    assert json.loads(why)["problems"] == [
        f"held with exit code 6: {DeadLetterFlood(60, 100, 'undecodable')}"
    ]
    assert re.search(r"^cliptide_consumer_held_exit_code 6\.0$", metrics, re.MULTILINE)
    assert re.search(r"^cliptide_consumer_ready 0\.0$", metrics, re.MULTILINE)
    with pytest.raises(OSError, match="refused"):
        ask("/livez", port)  # it answers until the signal, and no longer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        pytest.param(RuntimeError("a defect"), 1, id="a fault"),
        pytest.param(TopicMissing("uploads"), 5, id="a missing topic"),
        pytest.param(Fenced("uploads-0", 1, 2), 7, id="another writer"),
    ],
)
@pytest.mark.usefixtures("port")
def test_what_a_restart_may_mend_is_not_held(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(settings: EncoderSettings) -> HashEncoder:
        raise error

    monkeypatch.setattr(program.Signals, "wait", lambda self: pytest.fail("held"))
    assert run(fail, ["--hold"]) == code


@pytest.mark.parametrize("error", [ClipIndexError("x"), EncoderUnavailable("x", "y")])
@pytest.mark.usefixtures("port")
def test_without_the_flag_every_failure_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(settings: EncoderSettings) -> HashEncoder:
        raise error

    monkeypatch.setattr(program.Signals, "wait", lambda self: pytest.fail("held"))
    assert run(fail, []) in WANTS_A_PERSON


def test_the_codes_that_are_held_are_those_for_which_a_person_must_decide() -> None:
    [said] = re.findall(r"^.*On ([\d, and]+) a person must decide", OPERATIONS, re.MULTILINE)
    assert {int(code) for code in re.findall(r"\d", said)} == WANTS_A_PERSON


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        pytest.param({}, ("127.0.0.1", 8081), id="the defaults"),
        pytest.param({"HOST": "0.0.0.0", "PORT": "9000"}, ("0.0.0.0", 9000), id="both set"),
        pytest.param({"HOST": "0.0.0.0", "PORT": "eighty"}, ("0.0.0.0", 8081), id="a port that is no number"),
        pytest.param({"PORT": "70000"}, ("127.0.0.1", 8081), id="a port above the last"),
        pytest.param({"PORT": "²"}, ("127.0.0.1", 8081), id="a digit that is no number"),
    ],
)
def test_health_checks_are_answered_where_they_are_expected_though_settings_are_bad(
    variables: dict[str, str], address: tuple[str, int]
) -> None:
    environment = {f"CLIPTIDE_CONSUMER__HEALTH_{name}": value for name, value in variables.items()}
    assert health_address(environment) == address


def test_the_defaults_of_a_held_consumer_are_those_of_the_settings() -> None:
    settings = read_settings().consumer
    assert health_address({}) == (settings.health_host, settings.health_port)


def test_a_signal_ends_a_held_consumer_with_its_code(port: int) -> None:
    variables = {**os.environ, "CLIPTIDE_CONSUMER__NO_SUCH_THING": "1"}
    held = subprocess.Popen(
        [sys.executable, "-m", "consumer", "--hold"], env=variables, stderr=subprocess.PIPE, text=True
    )
    try:
        eventually(lambda: held.poll() is not None or _is_live(port))
        assert "CLIPTIDE_CONSUMER__NO_SUCH_THING" in ask("/readyz", port)[1]
        held.send_signal(signal.SIGTERM)
        _, told = held.communicate(timeout=60)
    finally:
        held.kill()
        held.wait()
    assert held.returncode == 2
    assert told.startswith("consumer: CLIPTIDE_CONSUMER__NO_SUCH_THING: ")


def _is_live(port: int) -> bool:
    try:
        return ask("/livez", port)[0] == 200
    except OSError:
        return False


def test_without_an_address_a_consumer_is_held_without_health_checks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], port: int
) -> None:
    def refuse(settings: EncoderSettings) -> HashEncoder:
        raise ClipIndexError("another topic")

    monkeypatch.setenv("CLIPTIDE_CONSUMER__HEALTH_HOST", "no.such.host.invalid")
    waited: list[bool] = []
    monkeypatch.setattr(program.Signals, "wait", lambda self: waited.append(True))
    assert run(refuse, ["--hold"]) == 3
    assert waited == [True]
    assert "held without health checks" in capsys.readouterr().err
