import numpy as np
import numpy.typing as npt
import pytest
from open_clip.tokenizer import SimpleTokenizer

from cliptide.demo.garments.captions import Caption
from cliptide.demo.garments.combinations import (
    COLOURS,
    GARMENTS,
    PATTERNS,
    Combination,
    held_out_combinations,
    training_combinations,
)
from cliptide.demo.small_clip.model import UNKNOWN_WORD_ROW
from cliptide.demo.small_clip.training_set import (
    OPEN,
    BatchSampler,
    attribute_row,
    draw_all_pictures,
    draw_pictures,
    read_captions,
    write_captions,
)

CAPTIONS_EACH = 5


@pytest.fixture
def sampler() -> BatchSampler:
    """Samples all training combinations; the pixels of a picture hold the number of its combination."""
    combinations = training_combinations()
    pictures = [np.full((3, 1, 1, 3), number % 256, dtype=np.uint8) for number in range(len(combinations))]
    captions = write_captions(combinations, CAPTIONS_EACH, seed=1)
    return BatchSampler(combinations, pictures, captions, np.random.default_rng(1))


def trained_on(attributes: npt.NDArray[np.int64]) -> set[Combination]:
    return {Combination(GARMENTS[g], COLOURS[c], PATTERNS[p]) for g, c, p in attributes}


@pytest.mark.parametrize(
    ("described", "row"),
    [
        pytest.param(Combination("dress", "red", "plain"), [0, 0, 0], id="the first of each"),
        pytest.param(Combination("umbrella", "grey", "checked"), [17, 11, 3], id="the last of each"),
        pytest.param(
            Caption("a hat", "hat", None, None), [7, OPEN, OPEN], id="a caption that leaves two open"
        ),
    ],
)
def test_attributes_are_positions_in_their_lists(described: Combination | Caption, row: list[int]):
    assert attribute_row(described) == row


def test_pictures_of_a_combination_depend_on_the_seed_alone():
    red_dress = Combination("dress", "red", "striped")
    first = draw_pictures(red_dress, 2, seed=1)

    assert first.shape == (2, 64, 64, 3)
    assert np.array_equal(draw_pictures(red_dress, 2, seed=1), first)
    assert not np.array_equal(draw_pictures(red_dress, 2, seed=2), first)
    assert not np.array_equal(first[0], first[1])


def test_pictures_drawn_by_several_processes_come_in_the_order_asked_for():
    combinations = training_combinations()[:5]
    drawn = draw_all_pictures(combinations, 1, seed=3)

    for combination, pictures in zip(combinations, drawn, strict=True):
        assert np.array_equal(pictures, draw_pictures(combination, 1, seed=3))


def test_three_captions_in_four_name_all_attributes():
    captions = write_captions(training_combinations(), 8, seed=1)
    is_full = [OPEN not in attribute_row(caption) for caption in captions]

    assert sum(is_full) == len(captions) * 3 // 4


def test_each_picture_comes_with_a_caption_of_its_own_combination(sampler: BatchSampler):
    batch = sampler.sample(256)

    assert np.array_equal(batch.pixels[:, 0, 0, 0], batch.captions // CAPTIONS_EACH % 256)
    open_or_alike = (batch.caption_attributes == OPEN) | (
        batch.caption_attributes == batch.picture_attributes
    )
    assert open_or_alike.all()


def test_no_batch_shows_a_held_out_combination(sampler: BatchSampler):
    for _ in range(20):
        assert not trained_on(sampler.sample(256).picture_attributes) & set(held_out_combinations())


def test_a_batch_is_of_few_garments_and_few_colours(sampler: BatchSampler):
    batch = sampler.sample(512)

    assert len(set(batch.picture_attributes[:, 0])) == len(GARMENTS) // 2
    assert len(set(batch.picture_attributes[:, 1])) == len(COLOURS) * 2 // 3


def test_batches_together_show_every_training_combination(sampler: BatchSampler):
    shown: set[Combination] = set()
    for _ in range(60):
        shown |= trained_on(sampler.sample(512).picture_attributes)

    assert shown == set(training_combinations())


def test_captions_are_read_with_open_clips_own_tokenizer():
    captions = [Caption("a red dress", "dress", "red", None), Caption("hat", "hat", None, None)]
    vocabulary, rows = read_captions(captions, np.random.default_rng(1))
    tokens = SimpleTokenizer()([caption.text for caption in captions]).numpy()

    assert set(vocabulary.token_ids) == set(tokens[0, :5]) | set(tokens[1, :3])
    for row, expected in zip(rows, vocabulary.rows(tokens), strict=True):
        known = row[row != UNKNOWN_WORD_ROW]
        assert known.tolist() == expected[expected != UNKNOWN_WORD_ROW].tolist()


def test_unknown_words_are_strewn_between_start_and_end_of_some_captions():
    captions = [Caption("a red dress", "dress", "red", None)] * 400
    vocabulary, rows = read_captions(captions, np.random.default_rng(1))
    lengths = rows.argmax(axis=1) + 1

    assert 0.2 < (lengths > 5).mean() < 0.4
    assert lengths.max() == 5 + 4
    assert (rows[:, 0] == len(vocabulary) - 2).all()
