"""In which lists the best nodes of a query are expected.

The nodes of a list are spread around its centroid. In many dimensions, what a query scores with them is
spread about as a normal distribution is. Its deviation is the root of a quadratic form of the query: wide
along directions in which the nodes of a list differ much. So the scores of the centroids tell how many nodes
of each list are expected among a query's ten best.

A query scans the lists in which all but a small share of its best nodes are expected (`Effort`). Compared
with all lists whose centroid scores within a fixed gap of the nearest one's, these are up to a half fewer
where data has no clusters. They serve different kinds of queries alike: those of either modality, sums,
differences, and those that are unlike everything. Each of these needs a gap of its own: on 100,000 rows with
a power-law spectrum, from 0.06 to 0.11.
"""

from __future__ import annotations

from math import log, sqrt

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.vectors.lists.codebook import Codebook

_LEAST_VARIANCE = 1e-8
_LEAST_COSINE = 0.1  # of less, the moments of 512 dimensions would have no room in fp16
_MEASURED = 16_384  # embeddings; of more, the deviations differ by a hundredth
_NUM_BEST = 10
_CONSTANT, _LINEAR, _SQUARE = 0.7, 0.7, 0.44
"""The share of a normal distribution beyond z ≥ 0 deviations is about exp(−(0.7 + 0.7 z + 0.44 z²)): up to
six deviations it is off by less than a sixth."""


class Spread:
    """How the nodes around centroids are spread. Immutable and thread-safe."""

    def __init__(self, stored: NDArray[np.float16], codebook: Codebook | None = None) -> None:
        """`stored` is what `measure_spread` has returned.

        The components of a `codebook` are nearly those of the moments. So if it has all of them, the
        deviation follows from the query along these, which codes ask for as well.
        """
        self.stored = stored
        self.codebook = codebook if codebook is not None and codebook.has_all_components else None
        moments: Embeddings = np.ascontiguousarray(stored, np.float32) / np.float32(len(stored))
        if self.codebook is None:
            self._moments = moments  # kept alive, because FAISS reads them
            self._pointer = faiss.swig_ptr(moments)
        else:
            components = self.codebook.components
            self._variances = np.einsum("cd,cd->c", components @ moments, components)

    def deviation(self, query: NDArray[np.float32]) -> float:
        """Return the deviation of what a query, (dimension,), scores with the nodes of a list.

        It is as of nodes whose mean is the centroid. FAISS multiplies in this thread alone, which takes less
        than to wake others.
        """
        if self.codebook is not None:
            return self.deviation_along(self.codebook.along(query[None])[0])
        size = len(query)
        product = np.empty(size, np.float32)
        pointers = faiss.swig_ptr(product), faiss.swig_ptr(query), self._pointer
        faiss.fvec_inner_products_ny(*pointers, size, size)
        return sqrt(max(_LEAST_VARIANCE, float(product.dot(query))))

    def deviation_along(self, along: NDArray[np.float32]) -> float:
        """Return the same for a query along the components of the codebook, (dimension,)."""
        return sqrt(max(_LEAST_VARIANCE, float(np.square(along).dot(self._variances))))


def measure_spread(
    embeddings: NDArray[np.float16], centroids: Embeddings, lists: NDArray[np.int64]
) -> NDArray[np.float16]:
    """Measure how embeddings, (n, dimension), of which each lies in a list, differ from their centroids.

    A unit embedding has a mean cosine of less than 1 with its centroid. So it is divided by this mean first.
    Returned are the second moments of the differences times the dimension, (dimension, dimension), which has
    room in fp16.
    """
    some = slice(None, None, -(-len(embeddings) // _MEASURED) or 1)
    nearest, exact = centroids[lists[some]], embeddings[some].astype(np.float32)
    mean_cosine = max(_LEAST_COSINE, float(np.einsum("nd,nd->n", exact, nearest).mean()))
    differences = exact / mean_cosine - nearest
    moments = differences.T @ differences * (exact.shape[1] / max(1, len(exact)))
    limit = np.finfo(np.float16).max
    stored: NDArray[np.float16] = moments.clip(-limit, limit).astype(np.float16)
    return stored


def expect_best(gaps: NDArray[np.float32], num_lists: int, num_nodes: float) -> NDArray[np.float32]:
    """Return how many of a query's best nodes are expected in the nearest lists up to each, (n,).

    It is in multiples of what the nearest list has. `gaps`, (n,), are how far the centroids score below the
    nearest one's, in deviations of the query. There are `num_lists` lists and `num_nodes` nodes in all.

    The tenth best node scores somewhat above the nearest centroid: `least` deviations if the ten best are all
    in one list, and `most` if all lists have as many of them. What lies in the middle serves all queries: to
    find out what each query's is would tell hardly more, and take longer.
    """
    per_list = _NUM_BEST * num_lists / num_nodes
    least, most = _exceeded_by(per_list), _exceeded_by(per_list / num_lists)
    slope = _LINEAR + _SQUARE * (least + most)
    exponents = gaps * np.float32(-_SQUARE)
    exponents -= np.float32(slope)
    exponents *= gaps
    expected: NDArray[np.float32] = np.exp(exponents, out=exponents).cumsum()
    return expected


def _exceeded_by(share: float) -> float:
    """Return how many deviations a share of a normal distribution exceeds."""
    exponent = max(0.0, -log(share) - _CONSTANT)
    return (sqrt(_LINEAR**2 + 4 * _SQUARE * exponent) - _LINEAR) / (2 * _SQUARE)


def count_lists(expected: NDArray[np.float32], left_out: float) -> int:
    """Return how many of the nearest lists hold all but a share of the best. `expected` is as above, (n,)."""
    return min(int(expected.searchsorted((1 - left_out) * float(expected[-1]))) + 1, len(expected))
