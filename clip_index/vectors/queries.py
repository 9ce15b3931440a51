"""The queries of one search, with what the searches of its segments share."""

from __future__ import annotations

from collections.abc import Mapping
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
_MIN_RANKED = 32  # of the centroids; fewer take as long


class Reach(Enum):
    """Which of a file's nodes a search looks at. Every node is in exactly one of the two."""

    NEAR = "near"
    """Where the best nodes of a query are expected: all nodes of a flat file, the nearest lists of others."""

    REST = "rest"
    """All other nodes."""


class Queries:
    """Query embeddings, (q, dimension) float32. Only the thread that searches uses them.

    Segments and tails of all shards have lists around the same centroids. The centroids are ranked
    once for all of them.

    `depth` is how many hits the near lists should be good for. It follows from the search and
    not from how many nodes a step of it asks for, so every step scans the same near lists. The pages
    of a ranking have one depth, however far they lead.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        depth: int = MIN_DEPTH,
        *,
        is_paged: bool = False,
        nodes_around: Mapping[int, int] | None = None,
    ) -> None:
        """`nodes_around` is how many nodes of all files lie around centroids, by the `id` of these."""
        self.is_paged = is_paged
        self._nodes_around = nodes_around or {}
        self.num_met = _NODES_MET_OF_HIT * max(depth, MIN_DEPTH)
        """How many nodes a query meets at least around one set of centroids, if there are as many."""
        self.embeddings: Embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.pointer = faiss.swig_ptr(self.embeddings)
        self._ranked: dict[int, Found] = {}

    def __len__(self) -> int:
        return len(self.embeddings)

    def nodes_around(self, centroids: Any, least: int) -> int:
        """Return how many nodes lie in lists around centroids: in all files, or `least` in one of them."""
        return max(least, self._nodes_around.get(id(centroids), 0))

    def nearest(self, centroids: Any, num_lists: int) -> Found:
        """Return at least the `num_lists` nearest of the centroids (a FAISS index), at most all of them.

        A few more are ranked than are asked for, because the next file may ask for a few more.
        """
        known = self._ranked.get(id(centroids))
        if known is None or known[1].shape[1] < num_lists:
            num_ranked = min(max(_MIN_RANKED, num_lists + num_lists // 4), centroids.ntotal)
            known = self._ranked[id(centroids)] = self._rank(centroids, num_ranked)
        return known

    def _rank(self, centroids: Any, num_lists: int) -> Found:
        scores, lists = self.empty(num_lists)
        centroids.search_c(len(self), self.pointer, num_lists, faiss.swig_ptr(scores), faiss.swig_ptr(lists))
        return scores, lists

    def empty(self, k: int) -> Found:
        """Return arrays for k results of each query."""
        return np.empty((len(self), k), np.float32), np.empty((len(self), k), np.int64)
