"""A range of times finds the same rows as a look at all of them, whatever order the rows have."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clip_index.masks.time_blocks import TimeBlocks

BLOCK_ROWS = 3

TIMES = st.lists(st.integers(0, 40), max_size=40)
BOUNDS = st.integers(-(2**63), 2**63 - 1) | st.integers(-1, 41)


@given(TIMES | TIMES.map(sorted), BOUNDS, BOUNDS, st.integers(0, 40))
def test_the_rows_of_a_range_are_those_of_a_comparison_with_all_times(
    times: list[int], least: int, most: int, max_rows: int
) -> None:
    all_times = np.array(times, np.int64)
    blocks = TimeBlocks(all_times, BLOCK_ROWS)
    expected = (all_times >= least) & (all_times <= most)
    assert blocks.mask_within(least, most).tolist() == expected.tolist()
    found = blocks.rows_within(least, most, max_rows)
    if found is not None:
        assert found.tolist() == np.flatnonzero(expected).tolist()
        assert len(found) <= max_rows


def test_few_rows_of_many_blocks_are_found_and_not_left_to_a_mask() -> None:
    blocks = TimeBlocks(np.arange(30), BLOCK_ROWS)
    for least, most in ((10, 10), (10, 12), (8, 12), (28, 50), (-5, 1), (31, 50), (-5, -1), (12, 8)):
        found = blocks.rows_within(least, most, 5)
        assert found is not None
        assert found.tolist() == list(range(max(least, 0), min(most, 29) + 1))
    assert blocks.rows_within(10, 15, 5) is None
