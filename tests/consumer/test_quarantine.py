"""A content that kills the process is found, and set aside, and harms nobody else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clip_index.index_reader import IndexReader
from consumer.errors import ConsumerFault
from consumer.inflight import InFlight, InFlightFile, read_inflight
from schemas.events import TextContent
from tests.consumer.encoders import FailingEncoder
from tests.consumer.killed_run import NUM_RECORDS, POISONED
from tests.consumer.running import World, upload
from tests.fakes.hash_encoder import HashEncoder

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
    assert world.metrics.registry.get_sample_value("cliptide_quarantined_records_total") in (1, 2)


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


@pytest.mark.parametrize("content", ["", "{", "[]", '{"next_offset": 1}', '{"next_offset": "x"}'])
def test_an_unreadable_in_flight_set_names_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / "inflight.json").write_text(content)
    assert InFlightFile.recover(tmp_path, 0).state == InFlight()


def test_a_good_end_leaves_nothing_suspect(tmp_path: Path) -> None:
    inflight = InFlightFile.recover(tmp_path, 0)
    inflight.name(40)
    inflight.clear()
    inflight.clear()
    assert InFlightFile.recover(tmp_path, 0).state == InFlight()
