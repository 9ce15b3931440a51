"""The queries of one search, with what the searches of its segments share."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

Found: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and nodes (or lists) of each query, both (q, k), best first; −1 where there are fewer."""

MIN_DEPTH = 100
"""Searches for fewer hits than this scan what a search for this many scans, so their answers agree."""

_NODES_MET_OF_HIT = 4


class Reach(Enum):
    """Which of a file's nodes a search looks at. Every node is either near or in the rest."""

    NEAR = "near"
    """Where the best nodes of a query are expected: all nodes of a flat file, the nearest lists of others."""

    REST = "rest"
    """All other nodes."""

    ALL = "all"
    """Every node: an exact answer, which costs a scan of the file."""


class Queries:
    """Query embeddings, (q, dimension) float32. Only the thread that searches uses them.

    A merged segment and the tail have lists around the same centroids. The centroids are ranked
    once for both, because the ranking is half the cost of a search.

    `depth` is how many hits the near lists should be good for. It follows from the search and
    not from how many nodes a step of it asks for, so every step scans the same near lists. The pages
    of a ranking have one depth, however far they lead.
    """

    def __init__(self, embeddings: Embeddings, depth: int = MIN_DEPTH, *, is_paged: bool = False) -> None:
        self.is_paged = is_paged
        self.num_met = _NODES_MET_OF_HIT * max(depth, MIN_DEPTH)
        """How many nodes a query meets at least, in a file that has as many."""
        self.embeddings: Embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.pointer = faiss.swig_ptr(self.embeddings)
        self._ranked: dict[int, Found] = {}

    def __len__(self) -> int:
        return len(self.embeddings)

    def nearest(self, centroids: Any, num_lists: int) -> Found:
        """Return at least the `num_lists` nearest of the centroids (a FAISS index), at most all of them."""
        known = self._ranked.get(id(centroids))
        if known is None or known[1].shape[1] < num_lists:
            known = self._ranked[id(centroids)] = self._rank(centroids, num_lists)
        return known

    def _rank(self, centroids: Any, num_lists: int) -> Found:
        scores, lists = self.empty(num_lists)
        centroids.search_c(len(self), self.pointer, num_lists, faiss.swig_ptr(scores), faiss.swig_ptr(lists))
        return scores, lists

    def empty(self, k: int) -> Found:
        """Return arrays for k results of each query."""
        return np.empty((len(self), k), np.float32), np.empty((len(self), k), np.int64)
