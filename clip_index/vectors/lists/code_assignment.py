"""Decides which principal components share a code of 4 bits, and which have two codes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class _Share(NamedTuple):
    """So many components share so many codes, and lose this share of a normal variance."""

    num_components: int
    num_codes: int
    loss: float


_SHARES = (
    _Share(1, 2, 0.00012),
    _Share(1, 1, 0.0115),
    _Share(2, 1, 0.107),
    _Share(3, 1, 0.21),
    _Share(4, 1, 0.31),
)
"""The losses of one and of two are those of Max ("Quantizing for minimum distortion", 1960, table I), nearly:
two components that share a code lose a little less than with two bits each. Those of three and four
are those of 16 values that were trained on normal variables."""
_LEAST_CODES, _MOST_CODES = 3 / 8, 3 / 4
"""Of the dimension. Scans take time in proportion to the codes. Fewer would lose what rare kinds have in
common (`clip_index/vectors/lists/codebook_training.py`)."""
_ERROR = 0.051
"""The deviation of a score's error, of that of the scores of a list's nodes, from which on there are more
codes: candidates become more by a factor for each step in error. With a power-law spectrum the fewest
suffice; where all components weigh the same, it takes nearly the most."""
_LEAST_WEIGHT = 1e-30
_TILT = 1.02
"""The first weight is raised by so much, and those behind it by less. Weights that are equal would all have
more codes at the same price, and their number would leap over the bounds."""
_HALVINGS = 30


def assign_codes(weights: NDArray[np.floating]) -> list[list[int]]:
    """Return the components of each code; one that has two codes is in two that follow each other.

    `weights`, (dimension,), are descending: by how much queries vary along a component, times how much what
    is coded does. The weighted errors are the least that the number of codes allows, but for a fiftieth.
    """
    return _Assignment(weights * np.linspace(_TILT, 1, len(weights))).find_codes()


class _Assignment:
    """Codes for some components: as few as keep the error small, within bounds."""

    def __init__(self, weights: NDArray[np.floating]) -> None:
        self._num = len(weights)
        sums = np.concatenate([[0.0], np.cumsum(weights, dtype=np.float64)])
        self._total = max(_LEAST_WEIGHT, float(sums[-1]))
        self._sums: list[float] = sums.tolist()

    def find_codes(self) -> list[list[int]]:
        least, most = (int(np.ceil(part * self._num)) for part in (_LEAST_CODES, _MOST_CODES))
        cheap, dear = 1e-12, 1.0  # what a code may cost, of the sum of all weights
        chosen = self._choose(dear)
        for _ in range(_HALVINGS):
            middle = float(np.sqrt(cheap * dear))
            shares = self._choose(middle)
            num_codes = sum(share.num_codes for share in shares)
            is_exact = self._error(shares) <= _ERROR
            if num_codes > most or (num_codes > least and is_exact):
                cheap = middle
            else:
                dear, chosen = middle, shares
        first, codes = 0, []
        for share in chosen:
            codes += [list(range(first, first + share.num_components))] * share.num_codes
            first += share.num_components
        return codes

    def _error(self, shares: list[_Share]) -> float:
        """Return the deviation of a score's error, of that of the scores of a list's nodes."""
        first, lost = 0, 0.0
        for share in shares:
            lost += share.loss * (self._sums[first + share.num_components] - self._sums[first])
            first += share.num_components
        return float(np.sqrt(lost / self._total))

    def _choose(self, price: float) -> list[_Share]:
        """Return the shares, first to last, with the least sum of losses and prices of their codes."""
        price *= self._total
        best: list[float] = [0.0]
        last: list[_Share] = []
        for end in range(1, self._num + 1):
            costs = [
                (
                    best[end - share.num_components]
                    + share.loss * (self._sums[end] - self._sums[end - share.num_components])
                    + price * share.num_codes,
                    number,
                )
                for number, share in enumerate(_SHARES)
                if share.num_components <= end
            ]
            cost, number = min(costs)
            best.append(cost)
            last.append(_SHARES[number])
        shares, end = [], self._num
        while end:
            shares.append(last[end - 1])
            end -= last[end - 1].num_components
        return shares[::-1]
