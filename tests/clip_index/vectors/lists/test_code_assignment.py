"""Components that weigh much have codes of their own; the others share some."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_index.vectors.lists.code_assignment import _SHARES, assign_codes

WEIGHTS = st.lists(st.floats(0, 1e3, width=32), min_size=8, max_size=80)


def ways_to_share(num_components: int) -> Iterator[list[int]]:
    """Yield all ways to share codes, as the numbers of shares from the first component to the last."""
    if not num_components:
        yield []
    for number, share in enumerate(_SHARES):
        if share.num_components <= num_components:
            for others in ways_to_share(num_components - share.num_components):
                yield [number, *others]


def lost(weights: np.ndarray, way: list[int]) -> float:
    ends = np.cumsum([0, *(_SHARES[number].num_components for number in way)])
    return sum(
        _SHARES[number].loss * weights[first:last].sum()
        for number, first, last in zip(way, ends, ends[1:], strict=False)
    )


def way_of(codes: list[list[int]]) -> list[int]:
    """Return the numbers of the shares that codes are."""
    by_size = {(share.num_components, share.num_codes): number for number, share in enumerate(_SHARES)}
    return [by_size[len(code), len(list(same))] for code, same in groupby(codes)]


@given(WEIGHTS)
def test_every_component_has_a_code_and_there_are_not_too_many(weights: list[float]) -> None:
    codes = assign_codes(np.sort(np.array(weights))[::-1])
    assert list(chain.from_iterable(code for code, _ in groupby(codes))) == list(range(len(weights)))
    assert len(codes) <= int(np.ceil(3 / 4 * len(weights)))


@given(st.lists(st.floats(1, 1e3, width=32), min_size=8, max_size=8))
def test_no_other_way_to_share_as_many_codes_loses_less(weights: list[float]) -> None:
    ordered = np.sort(np.array(weights))[::-1]
    way = way_of(assign_codes(ordered))
    num_codes = sum(_SHARES[number].num_codes for number in way)
    others = (
        lost(ordered, other)
        for other in ways_to_share(len(weights))
        if sum(_SHARES[number].num_codes for number in other) == num_codes
    )
    assert lost(ordered, way) <= min(others) * 1.02


def test_few_codes_suffice_where_few_components_weigh_much() -> None:
    numbers = np.arange(1, 513)
    assert len(assign_codes(1 / numbers**2)) == pytest.approx(192, abs=4)
    assert len(assign_codes(1 / numbers)) == pytest.approx(384, abs=4)


@pytest.mark.parametrize("power", [1.5, 1.75, 2.0])
def test_components_that_weigh_alike_do_not_have_fewer_codes_than_others(power: float) -> None:
    weights = 1 / np.arange(1, 513) ** power
    codes = assign_codes(np.maximum(weights, weights.mean() / 10))
    assert 3 / 8 * 512 - 2 <= len(codes) <= 3 / 4 * 512


def test_components_that_weigh_nothing_share_as_many_codes_as_they_can() -> None:
    assert [len(code) for code in assign_codes(np.zeros(16))] == [4, 4, 4, 4]
