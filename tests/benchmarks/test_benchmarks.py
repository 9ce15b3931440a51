"""The code that the figures share. The figures themselves are measured, not tested."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.__main__ import find_figures, main
from benchmarks.data import KINDS, Kind, draw_queries, draw_rows, draw_space
from benchmarks.figure import interleaved, median_ratio
from benchmarks.flame_graph import with_title
from benchmarks.indexes.commits import Mark, burst_per_second
from benchmarks.meanings import MEANINGS
from benchmarks.processes.process_figures import anonymous_bytes, cpu_seconds


def mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a @ b.T).mean())


@pytest.mark.parametrize("kind", KINDS)
def test_the_generated_rows_have_clips_modality_gap(kind: Kind) -> None:
    space = draw_space(3, kind)
    texts, images = draw_rows(space, "text", 2000, 3), draw_rows(space, "image", 2000, 3)
    assert mean_cosine(texts[:1000], texts[1000:]) == pytest.approx(0.5, abs=0.05)
    assert mean_cosine(images[:1000], images[1000:]) == pytest.approx(0.5, abs=0.05)
    assert mean_cosine(texts, images) == pytest.approx(0.2, abs=0.05)
    assert np.linalg.norm(images, axis=1) == pytest.approx(np.ones(2000), abs=1e-5)


def test_the_variances_of_a_spectrum_fall_as_one_over_n() -> None:
    rows = draw_rows(draw_space(3, "spectrum"), "image", 20_000, 3)
    variances = np.linalg.eigvalsh(np.cov(rows.T))[::-1]
    assert variances[0] / variances[9] == pytest.approx(10, rel=0.2)
    assert variances[0] / variances[99] == pytest.approx(100, rel=0.2)


def test_five_in_a_hundred_rows_repeat_another() -> None:
    rows = draw_rows(draw_space(3), "image", 10_000, 3)
    num_distinct = len(np.unique(rows, axis=0))
    assert 0.93 < num_distinct / len(rows) < 0.97


def test_rows_and_queries_follow_from_the_seed_and_differ() -> None:
    space = draw_space(3)
    assert (draw_rows(space, "text", 10, 4) == draw_rows(space, "text", 10, 4)).all()
    assert not (draw_rows(space, "text", 10, 4) == draw_queries(space, "text", 10, 4)).any()


def test_the_sides_are_timed_in_turn_after_a_warm_up() -> None:
    calls: list[str] = []
    seconds = interleaved(3, lambda: calls.append("a"), lambda: calls.append("b"))
    assert "".join(calls) == "ab" * 4
    assert [len(times) for times in seconds] == [3, 3]


def test_the_median_is_of_the_rounds_ratios() -> None:
    ratio = median_ratio([2.0, 3.0, 40.0], [1.0, 1.0, 10.0])
    assert (ratio.median, ratio.minimum, ratio.maximum) == (3.0, 2.0, 4.0)


def test_a_burst_has_its_rate_from_its_first_commit_on() -> None:
    assert burst_per_second([Mark(0.0, 0), Mark(10.0, 50), Mark(11.0, 100), Mark(12.0, 150)]) == 50.0


def test_a_burst_that_one_look_found_has_its_rate_from_the_look_before() -> None:
    assert burst_per_second([Mark(1.0, 0), Mark(3.0, 100)]) == 50.0


def test_the_cpu_time_of_a_process_is_what_its_own_clock_shows() -> None:
    before, own = cpu_seconds(os.getpid()), time.process_time()
    assert before <= own <= cpu_seconds(os.getpid())


def test_an_unknown_figure_is_named_beside_those_there_are() -> None:
    result = CliRunner().invoke(main, ["no_such_figure"])
    assert result.exit_code == 2
    assert "commit_cost" in result.stderr


def test_a_figure_prints_one_json_object_as_its_last_line() -> None:
    result = CliRunner().invoke(main, ["commit_cost", "--quick", "--json"])
    assert result.exit_code == 0, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["figure"] == "commit_cost"
    assert isinstance(answer["holds"], bool)


def test_every_figure_says_what_it_means_for_a_user() -> None:
    assert set(MEANINGS) == set(find_figures())


def test_every_figure_says_what_it_is() -> None:
    for name, module in find_figures().items():
        assert Path(module.__file__ or "").stem == name
        assert module.__doc__


def test_the_anonymous_memory_of_a_process_grows_with_what_it_holds() -> None:
    before = anonymous_bytes(os.getpid())
    held = np.ones(128 * 2**20, np.uint8)  # more than glibc ever takes from memory that was freed before
    assert anonymous_bytes(os.getpid()) - before > 0.5 * held.nbytes


IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"


def test_the_title_of_a_flame_graph_is_ours_in_place_of_the_command_that_drew_it() -> None:
    drawn = '<text id="title" x="50%" y="24">/home/a/py-spy record -p 7</text><text id="details"> </text>'
    assert with_title(drawn, "queries") == (
        '<text id="title" x="50%" y="24">queries</text><text id="details"> </text>'
    )


@pytest.mark.parametrize("graph", sorted(IMAGES.glob("*.svg")), ids=lambda graph: graph.name)
def test_a_flame_graph_names_no_folder_of_the_machine_that_drew_it(graph: Path) -> None:
    text = graph.read_text()
    assert "py-spy" not in text
    assert not re.search(r"/(home|root|tmp|work|usr|opt)/", text)
