"""The queries of one search, with what the searches of its segments share."""

from __future__ import annotations

from typing import Any, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

Found: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and nodes (or lists) of each query, both (q, k), best first; −1 where there are fewer."""


class Queries:
    """Query embeddings, (q, dimension) float32. Only the thread that searches uses them.

    A merged segment and the tail have lists around the same centroids. The centroids are ranked
    once for both, because the ranking is half the cost of a search.

    With a `depth`, the choice of lists depends on it and not on the number of nodes that are
    asked for. So the result for a smaller k is the beginning of the result for a greater k.
    """

    def __init__(self, embeddings: Embeddings, depth: int | None = None) -> None:
        self.depth = depth
        self.embeddings: Embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.pointer = faiss.swig_ptr(self.embeddings)
        self._ranked: dict[int, Found] = {}

    def __len__(self) -> int:
        return len(self.embeddings)

    def nearest(self, centroids: Any, num_lists: int) -> Found:
        """Return the `num_lists` nearest of the centroids (a FAISS index), at most all of them."""
        known = self._ranked.get(id(centroids))
        if known is None or known[1].shape[1] < num_lists:
            known = self._ranked[id(centroids)] = self._rank(centroids, num_lists)
        scores, lists = known
        if lists.shape[1] == num_lists:
            return known
        return np.ascontiguousarray(scores[:, :num_lists]), np.ascontiguousarray(lists[:, :num_lists])

    def _rank(self, centroids: Any, num_lists: int) -> Found:
        scores, lists = self.empty(num_lists)
        centroids.search_c(len(self), self.pointer, num_lists, faiss.swig_ptr(scores), faiss.swig_ptr(lists))
        return scores, lists

    def empty(self, k: int) -> Found:
        """Return arrays for k results of each query."""
        return np.empty((len(self), k), np.float32), np.empty((len(self), k), np.int64)
