import hashlib

import pytest

from cliptide.demo.garments.combinations import (
    COLOURS,
    GARMENTS,
    PATTERNS,
    Combination,
    all_combinations,
    held_out_combinations,
    is_held_out,
    training_combinations,
)


def test_the_world_has_18_garments_in_12_colours_and_4_patterns():
    assert (len(set(GARMENTS)), len(set(COLOURS)), len(set(PATTERNS))) == (18, 12, 4)
    assert len(set(all_combinations())) == 18 * 12 * 4


def test_at_least_120_combinations_are_held_out():
    assert len(held_out_combinations()) >= 120


def test_every_combination_is_either_held_out_or_trained_on():
    held_out, trained = set(held_out_combinations()), set(training_combinations())

    assert not held_out & trained
    assert held_out | trained == set(all_combinations())


def test_the_held_out_combinations_stay_those_that_the_shipped_weights_never_saw():
    names = "\n".join(map(str, held_out_combinations()))

    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "3e647bc98360c532"


@pytest.mark.parametrize(
    "position", [0, 1, 2], ids=["garment and colour", "garment and pattern", "both others"]
)
def test_training_sees_every_pair_of_attributes(position: int):
    kept = {0: ("garment", "colour"), 1: ("garment", "pattern"), 2: ("colour", "pattern")}[position]

    def pairs(combinations: tuple[Combination, ...]) -> set[tuple[str, str]]:
        return {(getattr(c, kept[0]), getattr(c, kept[1])) for c in combinations}

    assert pairs(training_combinations()) == pairs(all_combinations())


def test_a_combination_is_named_in_plain_words():
    assert str(Combination("dress", "red", "striped")) == "striped red dress"


def test_holding_out_looks_at_the_name_alone():
    first = all_combinations()[0]

    assert is_held_out(first) == is_held_out(Combination(first.garment, first.colour, first.pattern))
