"""Maximal marginal relevance: a ranking in which neighbours differ.

Carbonell and Goldstein, SIGIR 1998.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings


def diversify(scores: Sequence[float], embeddings: Embeddings, diversity: float) -> Iterator[int]:
    """Yield the positions of all candidates in their new order; each one costs a look at all of them.

    The next candidate is always the one with the greatest `(1 − diversity) · score − diversity · (its
    greatest cosine with a chosen one)`. `embeddings` is (candidates, dimension), unit vectors.
    """
    relevance = (1.0 - diversity) * np.asarray(scores, np.float64)
    nearest: NDArray[np.float64] = np.full(len(relevance), -1.0)
    is_left = np.ones(len(relevance), np.bool_)
    penalty: NDArray[np.float64] | float = 0.0
    for _ in range(len(relevance)):
        best = int(np.argmax(np.where(is_left, relevance - penalty, -np.inf)))
        yield best
        is_left[best] = False
        nearest = np.maximum(nearest, embeddings @ embeddings[best])
        penalty = diversity * nearest
