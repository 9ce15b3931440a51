"""How a score compares with the scores that nonsense reaches.

Scores of different queries are not comparable, because a query that is near everything has a high best
score and means little. So the *lift* of a score is compared: how far it rises above the mean score that
the query has with the contents of that modality. That mean is the query's cosine with their centroid.
The percentile of a hit compares its lift with the lifts of background queries.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

_ROUNDING = 1e-9  # a hit must reach the percentile that it was answered with, when that is demanded


@dataclass(frozen=True, slots=True)
class PercentileScale:
    """For queries of one modality and hits of one modality.

    `centroid` (dimension,) is the mean embedding of the contents. `lifts` (n ≥ 1,) are the lifts of the
    background queries' best hits, ascending.
    """

    centroid: Embeddings
    lifts: NDArray[np.float64]

    def percentiles(self, query: Embeddings, scores: list[float]) -> list[float]:
        """Return for each score the share of background queries whose best hit has a smaller lift."""
        num_below = np.searchsorted(self._scores_of(query), scores, side="left")
        shares: list[float] = (num_below / len(self.lifts)).tolist()
        return shares

    def reach(self, query: Embeddings, score: float) -> float:
        """Return the score's lift divided by the background's greatest: comparable across modalities."""
        lift = score - float(query @ self.centroid)
        return lift / max(float(self.lifts[-1]), _ROUNDING)

    def least_score(self, query: Embeddings, min_percentile: float) -> float:
        """Return the least score that has this percentile."""
        num_below = math.ceil(min_percentile * len(self.lifts) - _ROUNDING)
        if num_below == 0:
            return -math.inf
        return float(np.nextafter(self._scores_of(query)[num_below - 1], np.inf))

    def _scores_of(self, query: Embeddings) -> NDArray[np.float64]:
        """Return the scores that have the lifts of the background queries, ascending."""
        scores: NDArray[np.float64] = self.lifts + float(query @ self.centroid)
        return scores
