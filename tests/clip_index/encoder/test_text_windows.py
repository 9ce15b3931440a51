import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip_index.encoder.text_windows import Windowing, build_windows, check_not_blank
from clip_index.errors import BadContent

CLIP = Windowing.for_context(77)
START, END = 49406, 49407

token_counts = st.integers(min_value=1, max_value=CLIP.max_tokens)


def windows_of(num_tokens: int) -> list[list[int]]:
    """The tokens 1 … n in windows, without padding, start and end."""
    rows = build_windows(range(1, num_tokens + 1), CLIP, start_token=START, end_token=END)
    return [[token for token in row.tolist() if 0 < token < START] for row in rows]


def test_clip_has_windows_of_75_tokens_every_60() -> None:
    assert str(CLIP) == "75/60/64"
    assert CLIP.max_tokens == 75 + 63 * 60


@given(token_counts)
def test_every_token_is_in_a_window_and_in_order(num_tokens: int) -> None:
    windows = windows_of(num_tokens)
    assert sorted(set().union(*windows)) == list(range(1, num_tokens + 1))
    assert all(window == list(range(window[0], window[-1] + 1)) for window in windows)


@given(token_counts)
def test_neighbours_share_15_tokens(num_tokens: int) -> None:
    windows = windows_of(num_tokens)
    for one, next_one in itertools.pairwise(windows):
        assert one[-15:] == next_one[:15]


@given(token_counts)
def test_no_window_is_without_tokens_of_its_own(num_tokens: int) -> None:
    windows = windows_of(num_tokens)
    assert all(len(window) <= 75 for window in windows)
    assert all(len(window) > 15 for window in windows[1:])
    assert len(windows) <= 64


@given(token_counts)
def test_rows_are_start_tokens_end_and_zeros(num_tokens: int) -> None:
    rows = build_windows([7] * num_tokens, CLIP, start_token=START, end_token=END)
    assert rows.dtype == np.int32
    assert rows.shape[1] == 77
    for row in rows.tolist():
        end = row.index(END)
        assert row[0] == START
        assert set(row[1:end]) == {7}
        assert set(row[end + 1 :]) <= {0}


@pytest.mark.parametrize(
    ("num_tokens", "lengths"),
    [
        pytest.param(1, [1], id="one token"),
        pytest.param(75, [75], id="exactly one window"),
        pytest.param(76, [75, 16], id="one token more"),
        pytest.param(135, [75, 75], id="exactly two windows"),
        pytest.param(CLIP.max_tokens, [75] * 64, id="the longest text"),
    ],
)
def test_texts_are_cut_here(num_tokens: int, lengths: list[int]) -> None:
    assert [len(window) for window in windows_of(num_tokens)] == lengths


@pytest.mark.parametrize("context_length", [4, 16, 64, 77, 256])
def test_windows_of_any_context_cover_the_longest_text(context_length: int) -> None:
    windowing = Windowing.for_context(context_length)
    ranges = windowing.ranges(windowing.max_tokens)
    assert len(ranges) == 64
    assert set().union(*ranges) == set(range(windowing.max_tokens))
    assert {len(window) for window in ranges} == {context_length - 2}


def test_of_a_text_of_more_than_64_windows_the_first_64_are_kept() -> None:
    assert windows_of(CLIP.max_tokens + 1) == windows_of(CLIP.max_tokens)
    assert windows_of(3 * CLIP.max_tokens) == windows_of(CLIP.max_tokens)


def test_a_text_without_tokens_is_a_bad_content() -> None:
    with pytest.raises(BadContent, match="empty_text"):
        windows_of(0)


@pytest.mark.parametrize("text", ["", " ", "\n\t\u00a0\u2003"], ids=["empty", "a space", "exotic spaces"])
def test_a_blank_text_is_a_bad_content(text: str) -> None:
    with pytest.raises(BadContent, match="empty_text"):
        check_not_blank(text)
