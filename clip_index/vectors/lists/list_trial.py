"""How many lists hold the best that a filter selects. It is tried, until further lists hold nothing better.

What a filter leaves out may be just what lies nearest to a query: a category that was deleted, or one that a
filter excludes while people ask for it. The best of the rest is then spread over many lists. Which filter is
of that kind is not known beforehand, so it is tried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.queries import Found, Queries
from clip_index.vectors.scattered_codes import best_of
from clip_index.vectors.vectors import NodeSelection, clip_scores

NUM_SETTLED = 30  # of the best nodes. With 10 a filter took as long, and hits 11 to 30 were not always found.
VAIN_STEPS = 2  # with 1, recall@10 was 0.965 where the nearest 2 % were left out
_NOTHING_FOUND = -1.0  # the score of a node that is none


SelectionT_contra = TypeVar("SelectionT_contra", contravariant=True)


class ScanLists(Protocol[SelectionT_contra]):
    """Scans lists, (q, probes) ascending, for the k best selected nodes of each query."""

    def __call__(
        self, queries: Queries, k: int, probed: NDArray[np.int64], selection: SelectionT_contra, /
    ) -> Found: ...


class KeptScans:
    """Scans lists, and keeps what it has found: the lists that were tried need not be scanned again."""

    def __init__(self, scan: ScanLists[NodeSelection], k: int) -> None:
        """The k best of each scan are kept."""
        self._scan = scan
        self._k = k
        self._parts: list[Found] = []

    def __call__(
        self, queries: Queries, k: int, probed: NDArray[np.int64], selection: NodeSelection, /
    ) -> Found:
        found = self._scan(queries, max(k, self._k), probed, selection)
        self._parts.append(found)
        return found

    def best(self, queries: Queries, k: int) -> Found | None:
        """Return the k best of all scans; None if fewer were kept, or if there is more than one query."""
        if len(queries) > 1 or not self._parts or k > self._k:
            return None
        scores, nodes = best_of(self._parts, queries, k)
        return clip_scores((scores[:, :k], nodes[:, :k]))


def count_until_settled(
    best_scores: Callable[[slice], NDArray[np.float32]], num_near: int, num_lists: int
) -> int:
    """Return how many lists, nearest first, hold the best selected nodes of a query.

    Twice as many are scanned until twice those that were added hold none of the best. `best_scores` scans
    the lists of some ranks; it returns the scores of the best nodes there, best first.
    """
    best, num_vain = best_scores(slice(num_near)), 0
    while num_near < num_lists and num_vain < VAIN_STEPS:
        further = best_scores(slice(num_near, 2 * num_near))
        num_near = min(2 * num_near, num_lists)
        is_vain = further[0] <= best[-1] and best[-1] > _NOTHING_FOUND
        num_vain = num_vain + 1 if is_vain else 0
        best = np.sort(np.concatenate([best, further]))[::-1][:NUM_SETTLED]
    return num_near
