import random

import pytest

from cliptide.demo.garments.captions import (
    COLOUR_WORDS,
    GARMENT_WORDS,
    PATTERN_ADJECTIVES,
    PATTERN_PHRASES,
    Caption,
    plain_query,
    write_full_caption,
    write_partial_caption,
)
from cliptide.demo.garments.combinations import COLOURS, GARMENTS, PATTERNS, Combination, all_combinations

RED_DRESS = Combination("dress", "red", "striped")


def test_every_garment_colour_and_pattern_has_words():
    assert set(GARMENT_WORDS) == set(GARMENTS)
    assert set(COLOUR_WORDS) == set(COLOURS)
    assert set(PATTERN_ADJECTIVES) == set(PATTERN_PHRASES) == set(PATTERNS)


@pytest.mark.parametrize("table", [GARMENT_WORDS, COLOUR_WORDS, PATTERN_ADJECTIVES, PATTERN_PHRASES])
def test_no_word_means_two_things(table: dict[str, tuple[str, ...]]):
    words = [word for meanings in table.values() for word in meanings]

    assert len(words) == len(set(words))


def test_a_full_caption_names_all_three_attributes():
    rng = random.Random(1)
    for combination in all_combinations():
        text = write_full_caption(combination, rng).text
        patterns = PATTERN_ADJECTIVES[combination.pattern] + PATTERN_PHRASES[combination.pattern]
        for words in (GARMENT_WORDS[combination.garment], COLOUR_WORDS[combination.colour], patterns):
            assert any(word in text for word in words), text


def test_full_captions_are_worded_in_many_ways():
    rng = random.Random(1)

    assert len({write_full_caption(RED_DRESS, rng).text for _ in range(100)}) > 60


def test_a_partial_caption_names_one_or_two_attributes():
    rng = random.Random(1)
    for _ in range(200):
        caption = write_partial_caption(RED_DRESS, rng)
        named = [a for a in (caption.garment, caption.colour, caption.pattern) if a is not None]
        assert len(named) in (1, 2)
        assert caption.fits(RED_DRESS)


def test_a_partial_caption_keeps_silent_about_what_it_leaves_open():
    rng = random.Random(1)
    for _ in range(200):
        caption = write_partial_caption(RED_DRESS, rng)
        if caption.garment is None:
            assert not any(word in caption.text for word in GARMENT_WORDS["dress"])
        if caption.colour is None:
            assert not any(word in caption.text.split() for word in COLOUR_WORDS["red"])


@pytest.mark.parametrize(
    ("caption", "fits"),
    [
        pytest.param(Caption("a striped red dress", "dress", "red", "striped"), True, id="all alike"),
        pytest.param(Caption("a dress", "dress", None, None), True, id="garment alike, others open"),
        pytest.param(Caption("something red", None, "red", None), True, id="colour alike, others open"),
        pytest.param(Caption("a plain red dress", "dress", "red", "plain"), False, id="another pattern"),
        pytest.param(Caption("a red coat", "coat", "red", None), False, id="another garment"),
        pytest.param(Caption("something blue", None, "blue", None), False, id="another colour"),
    ],
)
def test_a_caption_fits_pictures_that_show_all_it_names(caption: Caption, fits: bool):
    assert caption.fits(RED_DRESS) is fits


@pytest.mark.parametrize(
    ("combination", "query"),
    [
        pytest.param(RED_DRESS, "a striped red dress", id="one thing"),
        pytest.param(Combination("shorts", "blue", "plain"), "a pair of plain blue shorts", id="a pair"),
    ],
)
def test_a_plain_query_reads_like_a_question_of_a_person(combination: Combination, query: str):
    assert plain_query(combination) == query


def test_the_same_seed_writes_the_same_captions():
    first, second = random.Random(7), random.Random(7)

    assert [write_full_caption(c, first) for c in all_combinations()] == [
        write_full_caption(c, second) for c in all_combinations()
    ]
