"""How many of the nearest lists a query scans."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.near_lists.effort import Effort
from clip_index.vectors.near_lists.spread import Spread, count_lists, expect_best

_FEW_PART, _FEW_NODES = 32, 8_000
"""A 32nd of the lists are few, but no more than hold 8,000 nodes: to scan them takes no longer than to find
out whether fewer would do."""
_MIN_RANKED = 32  # fewer take as long
_RANKED_MORE = 1.5  # than most queries scan: in the lists beyond, next to none of the best are expected
_LEAST_OF_GAP = 1 / 3
"""Usual queries expect their best in two fifths to four fifths of the lists within the gap. One that expects
them in less than a third is taken to ask for a rare kind of contents, which may be spread otherwise than
most, and scans all of these. Without this rule, queries for 130 of 40,000 contents with a mean and
directions of their own found 0.71 of their ten best, where the gap finds 0.95.
"""
_UNRANKED_PART = 1 / 2  # of what may be left out: lists beyond those that are ranked hold less by far


@dataclass(frozen=True, slots=True)
class NearRule:
    """Tells how many lists a query scans, among `num_lists` lists of `num_nodes` nodes (or rows)."""

    effort: Effort
    spread: Spread | None
    num_lists: int
    num_nodes: float

    @property
    def num_ranked_first(self) -> int:
        """How many lists are ranked for a query, unless it needs more; at most all."""
        more = int(_RANKED_MORE * self.effort.most_lists) + _MIN_RANKED if self._has_spread else 0
        return min(max(more, self.effort.usual_lists + 1), self.num_lists)

    @property
    def _num_few(self) -> int:
        return int(min(1 / _FEW_PART, _FEW_NODES / self.num_nodes) * self.num_lists)

    @property
    def _has_spread(self) -> bool:
        return self.spread is not None and self.effort.left_out > 0

    def count(self, scores: NDArray[np.float32], deviation: Callable[[Spread], float]) -> int | None:
        """Return how many lists a query scans; None if more must be ranked to tell.

        `scores`, (n,), are those of the nearest centroids, best first. The count does not depend on n.
        `deviation` tells the query's deviation by the spread; not every query asks for it.
        """
        gaps = scores[0] - scores
        within = int(gaps.searchsorted(self.effort.gap, side="right"))
        has_all = len(scores) == self.num_lists
        if within == len(scores) and not has_all:
            return None
        if self.spread is None or not self._has_spread or within <= self._num_few:
            return within
        gaps /= np.float32(deviation(self.spread))
        num_first = self.num_ranked_first
        count = self._count_expected(gaps[:num_first]) if len(gaps) >= num_first else None
        if count is None and has_all:
            count = self._count_expected(gaps)
        return within if count is not None and count < _LEAST_OF_GAP * within else count

    def _count_expected(self, gaps: NDArray[np.float32]) -> int | None:
        """Return how many lists a query scans; None if the lists that are ranked do not tell.

        `gaps`, (n,), are how far these score below the nearest one, in deviations. They do not tell if the
        query is far from everything, or if lists beyond them may hold much.
        """
        expected = expect_best(gaps, self.num_lists, self.num_nodes)
        count = count_lists(expected, self.effort.left_out)
        is_far = count > self.effort.most_lists
        if len(gaps) < self.num_lists and (is_far or self._may_hold_much(expected)):
            return None
        if is_far:
            count = count_lists(expected, self.effort.least_left_out)
        return max(count, self._num_few)

    def _may_hold_much(self, expected: NDArray[np.float32]) -> bool:
        """Whether lists beyond the ranked ones may hold much, if each holds as much as the last one."""
        in_last, in_all = float(expected[-1] - expected[-2]), float(expected[-1])
        return (self.num_lists - len(expected)) * in_last > _UNRANKED_PART * self.effort.left_out * in_all
