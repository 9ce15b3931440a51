"""Long texts as overlapping windows: nothing is cut at the model's context length.

What does not fit into 64 windows is left out. The limit counts tokens, and a character of another script
may need several, so a text that does not fit is not refused: that would depend on its language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_index.errors import BadContent

MAX_WINDOWS = 64


@dataclass(frozen=True, slots=True)
class Windowing:
    """Windows of `length` tokens, one every `stride`; consecutive ones share `length - stride`."""

    length: int
    stride: int
    max_windows: int = MAX_WINDOWS

    @classmethod
    def for_context(cls, context_length: int, num_special: int = 2) -> Windowing:
        """Return windows that leave room for special tokens: 75 with stride 60 for CLIP's 77 and two."""
        length = context_length - num_special
        return cls(length, max(1, length * 4 // 5))

    @property
    def max_tokens(self) -> int:
        return self.length + self.stride * (self.max_windows - 1)

    def __str__(self) -> str:
        return f"{self.length}/{self.stride}/{self.max_windows}"

    def ranges(self, num_tokens: int) -> list[range]:
        """Return the windows of a text as ranges of token positions. Every token is in at least one."""
        last_start = max(0, num_tokens - self.length)
        starts = range(0, last_start + self.stride, self.stride)
        return [range(start, min(start + self.length, num_tokens)) for start in starts]


def check_not_blank(text: str) -> None:
    """Raise BadContent `empty_text` for a text without a visible character."""
    if not text.strip():
        raise BadContent("empty_text", "the text is empty or only white space")


def build_windows(
    token_ids: Sequence[int], windowing: Windowing, *, start_token: int, end_token: int
) -> NDArray[np.int32]:
    """Lay a tokenised text out as model input: int32, shape (windows, length + 2), zero-padded.

    Each row is a start token, up to `length` tokens, an end token. Tokens beyond `max_windows`
    are left out. Raises BadContent `empty_text` without tokens.
    """
    return lay_out(token_ids, windowing, prefix=(start_token,), suffix=(end_token,))


def lay_out(
    token_ids: Sequence[int],
    windowing: Windowing,
    *,
    prefix: tuple[int, ...],
    suffix: tuple[int, ...],
    padding: int = 0,
) -> NDArray[np.int32]:
    """Do the same with any special tokens before and behind a window, and any padding behind them."""
    if not token_ids:
        raise BadContent("empty_text", "the text has no tokens")
    ids = np.asarray(token_ids[: windowing.max_tokens], dtype=np.int32)
    ranges = windowing.ranges(len(ids))
    length = len(prefix) + windowing.length + len(suffix)
    rows = np.full((len(ranges), length), padding, dtype=np.int32)
    for row, window in zip(rows, ranges, strict=True):
        tokens = (*prefix, *ids[window.start : window.stop], *suffix)
        row[: len(tokens)] = tokens
    return rows
