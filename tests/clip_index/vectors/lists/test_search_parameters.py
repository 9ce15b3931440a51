"""Parameters of searches are kept, but not one for every number of lists that a query may scan."""

from __future__ import annotations

import numpy as np

from clip_index.vectors.lists.search_parameters import SearchParameters


def test_a_search_of_as_many_lists_gets_the_same_parameters_again() -> None:
    parameters = SearchParameters()
    assert parameters.of(3) is parameters.of(3)
    assert [parameters.of(n).nprobe for n in (3, 5)] == [3, 5]


def test_a_few_are_kept_however_many_numbers_of_lists_are_asked_for() -> None:
    parameters = SearchParameters(np.full(8, 255, np.uint8))
    asked = [parameters.of(number) for number in range(1, 2_001)]
    assert [one.nprobe for one in asked] == list(range(1, 2_001))
    assert len(parameters._kept) <= 64
    assert all(one.sel is not None for one in asked)
