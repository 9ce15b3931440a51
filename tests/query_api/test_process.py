"""`python -m query_api` as a process: how it starts, refuses to start, and stops."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from clip_index.encoder.settings import EncoderSettings
from clip_index.indexes.index_directory import IndexDirectory
from clip_index.indexes.pointer import name_current
from clip_index.indexes.recorded_model import RecordedModel, record_model
from clip_index.storage.index_roots import open_root
from fakes.hash_encoder import HashEncoder
from query_api.__main__ import run
from tests.consumer.running import PATIENCE_SECONDS
from tests.query_api.serving.test_freshness import damage
from tests.query_api.small_index import SmallIndex

PROGRAM = """
import os, pathlib, sys, time
from query_api.__main__ import run
from fakes.hash_encoder import HashEncoder

class GatedEncoder(HashEncoder):
    def encode(self, prepared):
        while not pathlib.Path(os.environ.get("GATE", "/")).exists():
            time.sleep(0.01)
        return super().encode(prepared)

sys.exit(run(lambda settings: GatedEncoder()))
"""
LOADING = """
import signal, sys
from query_api.__main__ import run

def load(settings):
    print("loading", file=sys.stderr, flush=True)
    signal.pause()

sys.exit(run(load))
"""
COUNTING_FROZEN = """
import gc, json, sys
from query_api.__main__ import run
from fakes.hash_encoder import HashEncoder

class CountingEncoder(HashEncoder):
    def encode(self, prepared):
        told = {"event": "encoded", "frozen": gc.get_freeze_count()}
        sys.stderr.write(json.dumps(told) + "\\n")  # in one piece, because another thread logs
        return super().encode(prepared)

sys.exit(run(lambda settings: CountingEncoder()))
"""
SWAPPING = """
import json, os, sys, time, weakref
from query_api.__main__ import run
from fakes.hash_encoder import HashEncoder

class Weighty(HashEncoder):
    __slots__ = ("__weakref__",)

def load(settings):
    encoder = Weighty(dimension=int(settings.model))
    tell = lambda: sys.stderr.write(json.dumps({"event": "freed", "model": settings.model}) + "\\n")
    weakref.finalize(encoder, tell).atexit = False
    if settings.model == os.environ.get("SLOW_MODEL"):
        sys.stderr.write(json.dumps({"event": "loading slowly"}) + "\\n")
        time.sleep(600)
    return encoder

sys.exit(run(load))
"""
Start: TypeAlias = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """A factory of query service processes whose encoder waits for the file GATE; the end kills them."""
    started: list[subprocess.Popen[str]] = []

    def start_process(program: str = PROGRAM, **variables: str) -> subprocess.Popen[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CLIPTIDE_")}
        ports = {"CLIPTIDE_QUERY_API__PORT": "0", "CLIPTIDE_QUERY_API__METRICS_PORT": "0"}
        environment = {**kept, **ports, "CLIPTIDE_QUERY_API__DRAIN_SECONDS": "0", **variables}
        process = subprocess.Popen(
            [sys.executable, "-c", program], env=environment, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start_process
    for process in started:
        process.kill()
        process.communicate()


def address_of(process: subprocess.Popen[str]) -> str:
    return addresses_of(process)[0]


def addresses_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Wait until the process listens; return where, and where its metrics are."""
    entry = told_by(process, "listening")
    [address] = entry["addresses"]
    return f"http://{address}", f"http://{entry['metrics']}"


def told_by(process: subprocess.Popen[str], event: str) -> dict[str, Any]:
    """Read the process's log up to an event."""
    assert process.stderr is not None
    for line in process.stderr:
        entry: dict[str, Any] = json.loads(line)
        if entry["event"] == event:
            return entry
    raise AssertionError(f"the process ended without a word of {event}")


def refusal_of(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, told = process.communicate(timeout=120)
    assert told.count("\n") == 1, told
    return process.returncode, told


def test_a_request_in_flight_is_answered_after_sigterm_and_the_exit_code_is_0(
    small_index: SmallIndex, start: Start, tmp_path: Path
) -> None:
    process = start(
        CLIPTIDE_INDEX__ROOT=str(small_index.root),
        CLIPTIDE_QUERY_API__PERCENTILES="false",  # what is encoded is the request, and not their phrases
        GATE=str(tmp_path / "gate"),
    )
    address, metrics_address = addresses_of(process)
    answers: list[Any] = []

    def ask() -> None:
        with urllib.request.urlopen(f"{address}/v1/search?q=red+dress", timeout=PATIENCE_SECONDS) as response:
            answers.append(json.load(response))

    asking = threading.Thread(target=ask)
    asking.start()
    wait_until_counted(metrics_address, "encoded_batch_size_count 1.0")
    process.send_signal(signal.SIGTERM)
    told_by(process, "stopping")
    (tmp_path / "gate").touch()
    asking.join(PATIENCE_SECONDS)
    assert answers[0]["results"]["text"]["hits"][0]["content_id"] == "t-red"
    assert process.wait(PATIENCE_SECONDS) == 0


def test_after_sigterm_it_is_not_ready_and_answers_until_the_drain_is_over(
    small_index: SmallIndex, start: Start
) -> None:
    process = start(CLIPTIDE_INDEX__ROOT=str(small_index.root), CLIPTIDE_QUERY_API__DRAIN_SECONDS="60")
    address = address_of(process)
    process.send_signal(signal.SIGTERM)
    assert told_by(process, "stopping")["drain_seconds"] == 60
    with pytest.raises(urllib.error.HTTPError, match="503"):
        urllib.request.urlopen(f"{address}/readyz", timeout=PATIENCE_SECONDS)
    with urllib.request.urlopen(f"{address}/v1/search?q=red", timeout=PATIENCE_SECONDS) as response:
        assert response.headers["Connection"] == "close"
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_SECONDS) == 0


def test_after_a_swap_the_encoder_of_the_start_is_freed(tmp_path: Path, start: Start) -> None:
    begin_two_indexes(tmp_path)
    process = start(SWAPPING, CLIPTIDE_INDEX__ROOT=str(tmp_path), CLIPTIDE_ENCODER__MODEL="32")
    address_of(process)
    name_current(open_root(tmp_path), "v2", after=1)
    assert told_by(process, "freed")["model"] == "32"


def test_a_service_that_is_killed_while_it_prepares_another_index_starts_with_that_one(
    tmp_path: Path, start: Start
) -> None:
    begin_two_indexes(tmp_path)
    variables = {"CLIPTIDE_INDEX__ROOT": str(tmp_path), "CLIPTIDE_ENCODER__MODEL": "32"}
    process = start(SWAPPING, SLOW_MODEL="48", **variables)
    address_of(process)
    before = files_of(tmp_path)
    name_current(open_root(tmp_path), "v2", after=1)
    told_by(process, "loading slowly")
    process.kill()
    process.wait(PATIENCE_SECONDS)
    assert files_of(tmp_path) - before == {"current-2.json"}
    again = start(SWAPPING, **variables)
    with urllib.request.urlopen(f"{address_of(again)}/v1/index", timeout=PATIENCE_SECONDS) as response:
        assert json.load(response)["index_id"] == "v2"


def files_of(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def begin_two_indexes(root: Path) -> None:
    """The index main of the model 32 serves, and v2 of the model 48 lies beside it."""
    for index_id, dimension in (("main", 32), ("v2", 48)):
        index = SmallIndex(root, encoder=HashEncoder(dimension=dimension), index_id=index_id).create()
        index.commit(0, index.text("t-red", "a red dress"))
        record_model(IndexDirectory.open(root, index_id).store, RecordedModel(str(dimension)))


def test_it_starts_before_there_is_an_index(tmp_path: Path, start: Start) -> None:
    process = start(CLIPTIDE_INDEX__ROOT=str(tmp_path / "none"))
    with urllib.request.urlopen(f"{address_of(process)}/livez", timeout=PATIENCE_SECONDS) as response:
        assert response.status == 200
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 0


def test_a_service_starts_with_the_newest_good_generation_of_a_damaged_shard_and_says_so(
    small_index: SmallIndex, start: Start
) -> None:
    small_index.commit(0, small_index.text("t-new", "a text of the damaged generation"))
    damaged = damage(small_index.newest_segment(0))
    process = start(
        CLIPTIDE_INDEX__ROOT=str(small_index.root),
        CLIPTIDE_QUERY_API__PERCENTILES="false",
        GATE="/",
    )
    said = told_by(process, "serving an older generation")
    assert str(damaged) in said["error"]
    assert "cliptide snapshot repair" in said["way_on"]
    address, metrics_address = addresses_of(process)
    with urllib.request.urlopen(f"{address}/v1/index", timeout=PATIENCE_SECONDS) as response:
        shards = json.load(response)["shards"]
    shard = shards["content-uploads-0"]
    assert shard["damaged_generation"] > shard["generation"] > 0
    assert "damaged_generation" not in shards["content-uploads-1"] or (
        shards["content-uploads-1"]["damaged_generation"] is None
    )
    with urllib.request.urlopen(f"{address}/readyz", timeout=PATIENCE_SECONDS) as response:
        assert "is damaged" in json.load(response)["problems"][0]
    wait_until_counted(metrics_address, 'cliptide_query_shard_damaged{shard="content-uploads-0"} 1.0')


def test_a_damaged_file_is_named_and_refused(small_index: SmallIndex, start: Start) -> None:
    damaged = damage(small_index.newest_segment(0))
    exit_code, told = refusal_of(start(CLIPTIDE_INDEX__ROOT=str(small_index.root)))
    assert exit_code == 1
    assert str(damaged) in told


def test_another_encoder_is_refused_and_both_are_named(tmp_path: Path, start: Start) -> None:
    other = HashEncoder(seed=1)
    index = SmallIndex(tmp_path / "index", encoder=other).create()
    exit_code, told = refusal_of(start(CLIPTIDE_INDEX__ROOT=str(index.root)))
    assert exit_code == 1
    assert other.fingerprint.short in told
    assert HashEncoder().fingerprint.short in told


def test_a_port_in_use_is_named_and_refused(small_index: SmallIndex, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        process = start(CLIPTIDE_INDEX__ROOT=str(small_index.root), CLIPTIDE_QUERY_API__PORT=port)
        exit_code, told = refusal_of(process)
    assert exit_code == 2
    assert told == (
        f"query_api: CLIPTIDE_QUERY_API__PORT: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    )


def test_an_unknown_host_of_the_metrics_is_named_and_refused(small_index: SmallIndex, start: Start) -> None:
    host = "a host.invalid"
    process = start(CLIPTIDE_INDEX__ROOT=str(small_index.root), CLIPTIDE_QUERY_API__METRICS_HOST=host)
    exit_code, told = refusal_of(process)
    assert exit_code == 2
    assert f"CLIPTIDE_QUERY_API__METRICS_HOST: cannot listen on {host}:0" in told


def test_an_interrupt_while_the_encoder_is_loaded_is_no_fault(start: Start) -> None:
    process = start(program=LOADING)
    assert process.stderr is not None
    assert process.stderr.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in told.splitlines()] == ["stopping"]


def test_processes_that_share_a_port_show_the_metrics_of_all(
    small_index: SmallIndex, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "metrics").mkdir()
    with reserved_port() as port, reserved_port() as metrics_port:
        shared = {
            "CLIPTIDE_INDEX__ROOT": str(small_index.root),
            "CLIPTIDE_QUERY_API__REUSE_PORT": "true",
            "CLIPTIDE_QUERY_API__PORT": str(port),
            "CLIPTIDE_QUERY_API__METRICS_PORT": str(metrics_port),
            "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"),
        }
        first = start(**shared)
        address, metrics_address = addresses_of(first)
        for _ in range(3):
            urllib.request.urlopen(f"{address}/v1/index", timeout=PATIENCE_SECONDS).close()
        second = start(**shared)
        assert addresses_of(second) == (address, metrics_address)
        counted = 'cliptide_query_requests_total{method="GET",route="/v1/index",status="200"} '
        wait_until_counted(metrics_address, counted + "3.0")
        first.send_signal(signal.SIGTERM)
        assert first.wait(PATIENCE_SECONDS) == 0
        urllib.request.urlopen(f"{address}/v1/index", timeout=PATIENCE_SECONDS).close()
        wait_until_counted(metrics_address, counted + "4.0")  # what the first has counted is not lost
        served = 'cliptide_query_searcher_next_offset{shard="content-uploads-0"} 3.0'
        wait_until_counted(metrics_address, served)


def test_the_collector_of_a_running_service_leaves_out_what_was_loaded_at_its_start(
    small_index: SmallIndex, start: Start
) -> None:
    process = start(COUNTING_FROZEN, CLIPTIDE_INDEX__ROOT=str(small_index.root))
    assert told_by(process, "encoded")["frozen"] > 10_000


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port that nobody takes but who shares it: it is bound here, and nobody listens."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def load_with_defect(settings: EncoderSettings) -> HashEncoder:
    raise ValueError("a defect of the encoder")


def test_a_value_error_of_a_running_service_is_a_fault_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(load_with_defect) == 1
    told = capsys.readouterr()
    assert "Traceback" in told.out + told.err
    assert "query_api: a defect of the encoder\n" in told.err


def test_a_property_that_kafkas_client_refuses_is_named_and_exits_with_2(
    small_index: SmallIndex, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(small_index.root))
    monkeypatch.setenv("CLIPTIDE_QUERY_API__CAN_PUBLISH", "true")
    monkeypatch.setenv("CLIPTIDE_KAFKA__PROPERTIES", '{"session.timeout.ms": "soon"}')
    assert run(lambda settings: HashEncoder()) == 2
    assert capsys.readouterr().err.startswith("query_api: CLIPTIDE_KAFKA__PROPERTIES: ")


def test_a_host_that_can_be_no_name_is_named_and_exits_with_2(
    small_index: SmallIndex, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPTIDE_INDEX__ROOT", str(small_index.root))
    monkeypatch.setenv("CLIPTIDE_QUERY_API__METRICS_PORT", "0")
    monkeypatch.setenv("CLIPTIDE_QUERY_API__METRICS_HOST", "x" * 70)
    assert run(lambda settings: HashEncoder()) == 2
    assert "query_api: CLIPTIDE_QUERY_API__METRICS_HOST: cannot listen on xxx" in capsys.readouterr().err


def test_a_bad_setting_is_one_line_and_exit_code_2(start: Start) -> None:
    exit_code, told = refusal_of(start(CLIPTIDE_QUERY_API__PORT="http"))
    assert exit_code == 2
    assert "CLIPTIDE_QUERY_API__PORT" in told


def wait_until_counted(address: str, line: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{address}/metrics", timeout=PATIENCE_SECONDS) as response:
            if line in response.read().decode():
                return
    raise AssertionError(f"{line} never came")
