"""A content that kills the process is found, and set aside, and harms nobody else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clip_index.errors import CommitUnknown, DeltaMismatch
from clip_index.generations.inspection import Inspection
from clip_index.generations.restoration import commit_restoration, plan_refill
from clip_index.reading.index_reader import IndexReader
from clip_index.storage.local_store import LocalShardStore
from consumer.errors import ConsumerFault, StartRefused
from consumer.intake.start_check import StartOptions
from consumer.pipeline_state import PipelineState
from consumer.quarantine.handling import QuarantineHandling
from consumer.quarantine.inflight import InFlight, InFlightClosed, InFlightFile, read_inflight
from consumer.quarantine.risk_gate import RiskGate
from consumer.telemetry.metrics import Metrics
from event_log.errors import FatalLogError
from event_log.memory.clients import MemoryPublisher
from fakes.hash_encoder import HashEncoder
from schemas.errors import BadEvent, UnknownSchema
from schemas.events import TextContent
from tests.consumer.encoders import FailingEncoder
from tests.consumer.killed_run import NUM_RECORDS, POISONED
from tests.consumer.running import PATIENCE_SECONDS, World, eventually, upload

_KILLED = 139


def live(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.consumer.killed_run", str(root)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_three_deaths_alone_make_a_dead_letter_and_the_rest_is_indexed(tmp_path: Path) -> None:
    lives = [live(tmp_path) for _ in range(5)]
    assert [life.returncode for life in lives] == [_KILLED] * 4 + [0], lives[-1].stderr
    assert json.loads(lives[-1].stdout.splitlines()[-1]) == ["kills_process"]
    reader = IndexReader(tmp_path, "main")
    reader.reload()
    assert reader.searcher is not None
    found = [n for n in range(NUM_RECORDS) if reader.searcher.find(f"c{n}") is not None]
    assert found == [n for n in range(NUM_RECORDS) if n != POISONED]


def test_a_fault_keeps_the_in_flight_set_and_names_its_place(world: World) -> None:
    world.encoder = FailingEncoder()
    world.publish(upload("good"))
    world.publish(upload("bad", TextContent("poison")))
    error = world.failure()
    assert isinstance(error, ConsumerFault)
    assert "RuntimeError" in str(error)
    assert read_inflight(world.shard_path() / "inflight.json").next_offset == 2


def test_an_error_of_the_encoder_thread_that_no_rule_expects_keeps_the_in_flight_set(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing_publish(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(MemoryPublisher, "offer", failing_publish)
    world.append(b"x", b"garbage")
    assert isinstance(world.failure(), RuntimeError)
    assert read_inflight(world.shard_path() / "inflight.json").next_offset == 1


def test_an_error_of_the_intake_thread_that_no_rule_expects_keeps_the_in_flight_set(world: World) -> None:
    pipeline = world.build()
    pipeline.start()
    world.wait_committed(world.publish(upload("a")))
    world.log.fail_next("poll", RuntimeError("a defect"))  # type: ignore[arg-type]
    assert pipeline.wait(PATIENCE_SECONDS)
    with pytest.raises(RuntimeError, match="a defect"):
        pipeline.finish()
    assert read_inflight(world.shard_path() / "inflight.json").next_offset == 1


@pytest.mark.parametrize(
    ("error", "is_fault"),
    [
        pytest.param(RuntimeError(), True, id="a defect"),
        pytest.param(OSError(), True, id="a disk where no rule waits for it"),
        pytest.param(ConsumerFault(), True, id="a fault"),
        pytest.param(DeltaMismatch("uploads-0", 1, 2), True, id="records skipped or repeated"),
        pytest.param(StartRefused(), False, id="refused"),
        pytest.param(FatalLogError(), False, id="the log cannot be used"),
        pytest.param(CommitUnknown(), False, id="only the disk can tell"),
        pytest.param(UnknownSchema("x", "y"), False, id="an unknown schema"),
    ],
)
def test_a_fault_is_what_no_rule_expects(error: Exception, is_fault: bool) -> None:
    state = PipelineState()
    assert not state.has_faulted()
    state.fail(error)
    assert state.has_faulted() is is_fault


@pytest.mark.parametrize(
    ("error", "is_suspect"),
    [
        pytest.param(UnknownSchema("x", "y"), False, id="an unknown schema"),
        pytest.param(BadEvent("undecodable", "y"), False, id="a bad event"),
        pytest.param(RuntimeError("a defect"), True, id="a defect"),
    ],
)
def test_a_record_that_waits_or_is_set_aside_in_quarantine_is_not_blamed_for_a_death(
    tmp_path: Path, error: Exception, is_suspect: bool
) -> None:
    inflight = InFlightFile(tmp_path / "inflight.json", InFlight(1))
    handling = QuarantineHandling(RiskGate(), HashEncoder(), inflight=inflight, offset=0, metrics=Metrics())
    with pytest.raises(type(error)), handling.around_step():
        raise error
    assert (read_inflight(tmp_path / "inflight.json").alone is not None) is is_suspect


def test_a_fault_alone_counts_as_a_death(world: World) -> None:
    world.encoder = FailingEncoder()
    world.publish(upload("bad", TextContent("poison")))
    for _ in range(4):
        assert isinstance(world.failure(), ConsumerFault)
    with world.running():
        world.wait_committed(1)
    assert world.reasons() == ["kills_process"]


def test_a_bad_content_in_quarantine_is_a_normal_dead_letter(world: World) -> None:
    world.encoder = FailingEncoder()
    world.append(b"x", b"garbage")
    world.publish(upload("bad", TextContent("poison")))
    assert isinstance(world.failure(), ConsumerFault)
    world.encoder = HashEncoder()
    with world.running():
        world.wait_committed(2)
    assert world.reasons()[-1] == "undecodable"
    assert world.searcher().find("bad") is not None
    assert world.metrics.registry.get_sample_value("cliptide_consumer_quarantined_records_total") in (1, 2)


@pytest.mark.parametrize("operation", ["mark_alone", "unmark_alone"])
def test_a_disk_that_fails_in_quarantine_is_waited_for_and_blamed_on_no_record(
    world: World, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    world.encoder = FailingEncoder()
    world.publish(upload("good"))
    world.publish(upload("bad", TextContent("poison")))
    assert isinstance(world.failure(), ConsumerFault)
    world.encoder = HashEncoder()
    write, failures = getattr(InFlightFile, operation), iter([OSError(28, "No space left on device")] * 3)

    def failing_write(inflight: InFlightFile, *offset: int) -> None:
        if failure := next(failures, None):
            raise failure
        write(inflight, *offset)

    monkeypatch.setattr(InFlightFile, operation, failing_write)
    with world.running():
        world.wait_committed(2)
        state = read_inflight(world.shard_path() / "inflight.json")
        assert (state.alone, state.deaths) == (None, {})
    assert world.reasons() == []
    assert world.failures("inflight") == 3


def test_a_stop_while_the_disk_fails_in_quarantine_counts_no_death(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.encoder = FailingEncoder()
    world.publish(upload("bad", TextContent("poison")))
    assert isinstance(world.failure(), ConsumerFault)
    world.encoder = HashEncoder()

    write = InFlightFile._write

    def failing_write(inflight: InFlightFile, state: InFlight) -> None:
        if inflight.state.alone is not None and state.alone is None:
            raise OSError(28, "No space left on device")
        write(inflight, state)

    with monkeypatch.context() as patched:
        patched.setattr(InFlightFile, "_write", failing_write)
        with world.running():
            eventually(lambda: (world.failures("inflight") or 0) >= 2)
    assert not (world.shard_path() / "inflight.json").exists()
    with world.running():
        world.wait_committed(1)
    assert world.reasons() == []


@pytest.mark.parametrize(
    ("found", "committed", "expected"),
    [
        pytest.param(InFlight(9), 4, InFlight(9), id="nothing was alone"),
        pytest.param(InFlight(9, alone=5), 4, InFlight(9, None, {5: 1}), id="a first death"),
        pytest.param(InFlight(9, 5, {5: 2}), 4, InFlight(9, None, {5: 3}), id="a third death"),
        pytest.param(InFlight(9, 5, {3: 2}), 4, InFlight(9, None, {5: 1}), id="committed ones are forgotten"),
        pytest.param(InFlight(9, 5), 6, InFlight(9), id="what was alone was committed"),
    ],
)
def test_a_death_counts_only_against_what_was_alone(
    found: InFlight, committed: int, expected: InFlight
) -> None:
    assert found.after_unclean_end(committed) == expected


def test_the_in_flight_set_survives_its_process(tmp_path: Path) -> None:
    first = InFlightFile.recover(tmp_path, 0)
    first.name(40)
    first.mark_alone(7)
    second = InFlightFile.recover(tmp_path, 5)
    assert second.state == InFlight(40, None, {7: 1})
    assert read_inflight(tmp_path / "inflight.json") == second.state


def test_a_shard_that_is_given_away_is_written_no_more(tmp_path: Path) -> None:
    inflight = InFlightFile.recover(tmp_path, 0)
    inflight.mark_alone(7)
    inflight.close()
    successor = InFlightFile.recover(tmp_path, 0)
    with pytest.raises(InFlightClosed):
        inflight.unmark_alone()
    assert read_inflight(tmp_path / "inflight.json") == successor.state == InFlight(0, None, {7: 1})


def test_two_writers_of_one_process_id_do_not_share_a_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In containers that share the root every process may have the id 1."""
    first, second = InFlightFile.recover(tmp_path, 0), InFlightFile.recover(tmp_path, 0)
    replace_name, others = os.replace, iter([second])

    def replace_later(source: Path, target: Path) -> None:
        if other := next(others, None):
            other.name(50)
        replace_name(source, target)

    monkeypatch.setattr(os, "replace", replace_later)
    first.name(40)
    assert read_inflight(tmp_path / "inflight.json").next_offset == 40
    assert [path.name for path in tmp_path.iterdir()] == ["inflight.json"]


def test_a_full_disk_is_left_without_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing_replace(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    inflight = InFlightFile.recover(tmp_path, 0)
    monkeypatch.setattr(os, "replace", failing_replace)
    with pytest.raises(OSError, match="No space"):
        inflight.name(40)
    assert list(tmp_path.iterdir()) == []


def test_naming_less_than_is_named_writes_nothing(tmp_path: Path) -> None:
    inflight = InFlightFile.recover(tmp_path, 0)
    inflight.name(40)
    (tmp_path / "inflight.json").write_text("as it was")
    inflight.name(39)
    assert (tmp_path / "inflight.json").read_text() == "as it was"


def test_a_growing_in_flight_set_is_overwritten_in_place(tmp_path: Path) -> None:
    inflight = InFlightFile.recover(tmp_path, 0)
    inflight.name(9)
    written_at = (tmp_path / "inflight.json").stat().st_ino
    for next_offset in (10, 10**18):
        inflight.name(next_offset)
        assert read_inflight(tmp_path / "inflight.json") == InFlight(next_offset)
    assert (tmp_path / "inflight.json").stat().st_ino == written_at


@pytest.mark.parametrize("num_deaths", [0, 40, 2000], ids=["short", "padded longer", "beyond a page"])
@pytest.mark.parametrize("former", ["", "{}", " " * 10_000])
def test_a_file_of_another_length_is_replaced(tmp_path: Path, former: str, num_deaths: int) -> None:
    state = InFlight(9, None, dict.fromkeys(range(num_deaths), 1))
    inflight = InFlightFile(tmp_path / "inflight.json", state)
    (tmp_path / "inflight.json").write_text(former)
    for next_offset in (40, 41):
        inflight.name(next_offset)
        assert read_inflight(tmp_path / "inflight.json") == InFlight(next_offset, None, state.deaths)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"next_offset": 1}',
        '{"next_offset": "x"}',
        '{"next_offset": 1, "alone": "x", "deaths": {}}',
        '{"next_offset": 1e999, "alone": null, "deaths": {}}',
        "[" * 100_000,
    ],
    ids=lambda content: content[:20],
)
def test_an_unreadable_in_flight_set_names_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "inflight.json").write_text(content)
    assert InFlightFile.recover(tmp_path, 0).state == InFlight()


def test_a_good_end_leaves_nothing_suspect(tmp_path: Path) -> None:
    inflight = InFlightFile.recover(tmp_path, 0)
    inflight.name(40)
    inflight.clear()
    inflight.clear()
    assert InFlightFile.recover(tmp_path, 0).state == InFlight()


def test_a_copy_by_hard_links_keeps_what_the_file_said(tmp_path: Path) -> None:
    inflight = InFlightFile.recover(tmp_path, 0)
    inflight.name(10)
    os.link(tmp_path / "inflight.json", tmp_path / "backup.json")
    inflight.name(1500)
    inflight.name(1600)
    assert read_inflight(tmp_path / "backup.json").next_offset == 10
    assert read_inflight(tmp_path / "inflight.json").next_offset == 1600


@pytest.mark.parametrize(
    ("read_from", "suspects"),
    [
        pytest.param(30, range(30, 40), id="the manifest is where it was"),
        pytest.param(35, range(35, 40), id="more was committed than the file knows"),
        pytest.param(5, range(30, 40), id="a repair has gone back"),
        pytest.param(40, range(40, 40), id="everything was committed"),
    ],
)
def test_only_what_was_not_committed_at_the_death_is_suspect(
    tmp_path: Path, read_from: int, suspects: range
) -> None:
    died = InFlightFile.recover(tmp_path, 0)
    died.note_committed(30)
    died.name(40)
    assert InFlightFile.recover(tmp_path, read_from).suspects == suspects


def test_after_going_back_the_file_follows_what_is_in_flight_now(tmp_path: Path) -> None:
    died = InFlightFile.recover(tmp_path, 0)
    died.note_committed(30)
    died.name(40)
    second = InFlightFile.recover(tmp_path, 5)
    second.name(8)
    assert InFlightFile.recover(tmp_path, 5).suspects == range(5, 8)


def test_a_file_of_a_former_version_names_its_suspects(tmp_path: Path) -> None:
    (tmp_path / "inflight.json").write_text('{"next_offset": 9, "alone": null, "deaths": {}}')
    assert InFlightFile.recover(tmp_path, 4).suspects == range(4, 9)


def test_after_a_rollback_records_that_were_committed_once_are_handled_together(world: World) -> None:
    for number in range(60):
        world.publish(upload(f"c{number}"))
    with world.running():
        world.wait_committed(60)
        world.publish(upload("last"))
        world.wait_committed(61)
        left_behind = (world.shard_path() / "inflight.json").read_bytes()
    store = LocalShardStore(world.shard_path())
    plan = plan_refill(Inspection(store))
    commit_restoration(store, plan, writer_id="repair")
    (world.shard_path() / "inflight.json").write_bytes(left_behind)  # as a kill would have left it
    world.set_options(start=StartOptions(accepts_rewind=True))
    with world.running():
        world.wait_committed(61)
    assert (world.metrics.registry.get_sample_value("cliptide_consumer_quarantined_records_total") or 0) <= 1
