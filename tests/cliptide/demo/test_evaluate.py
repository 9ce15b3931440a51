import json

import numpy as np
import pytest

from cliptide.demo.evaluate import PICTURES_EACH, Figures, draw_files, figures, main
from cliptide.demo.garments.combinations import Combination, held_out_combinations

NORTH, EAST = [0.0, 1.0], [1.0, 0.0]


def unit(rows: list[list[float]]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_a_model_that_finds_all_of_each_combination_is_perfect():
    gallery = unit([NORTH] * 8 + [EAST] * 8)
    found = figures(unit([NORTH, EAST]), np.array([0, 1]), gallery, np.array([0] * 8 + [1] * 8))

    assert found == Figures(1.0, 1.0, 2)


def test_recall_at_1_looks_at_the_top_picture_alone():
    gallery = unit([NORTH] + [EAST] * 9)
    shown = np.array([0] + [1] * 9)

    assert figures(unit([NORTH]), np.array([0]), gallery, shown).recall_at_1 == 1.0
    assert figures(unit([EAST]), np.array([0]), gallery, shown).recall_at_1 == 0.0


def test_precision_at_8_is_the_share_of_right_pictures_among_the_top_8():
    gallery = unit([NORTH] * 8 + [EAST])
    shown = np.array([0, 0, 0, 0, 0, 0, 1, 1, 0])

    assert figures(unit([NORTH]), np.array([0]), gallery, shown).precision_at_8 == 6 / 8


def test_figures_average_over_queries():
    gallery = unit([NORTH] * 8 + [EAST] * 8)
    shown = np.array([0] * 8 + [1] * 8)
    found = figures(unit([NORTH, EAST, EAST, EAST]), np.array([0, 0, 1, 1]), gallery, shown)

    assert found == Figures(0.75, 0.75, 2)


def test_the_gallery_of_a_combination_is_the_same_at_every_evaluation():
    red_dress = Combination("dress", "red", "striped")
    files = draw_files(red_dress)

    assert len(set(files)) == PICTURES_EACH
    assert draw_files(red_dress) == files


@pytest.mark.encoder
def test_the_packaged_model_finds_what_it_was_never_trained_on(capsys: pytest.CaptureFixture[str]):
    main(["--json"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert found["recall@1"] >= 0.95
    assert found["precision@8"] >= 0.90
    assert found["num_combinations"] == len(held_out_combinations()) >= 120
