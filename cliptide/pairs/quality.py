"""How good rankings are: recall at k, MRR and nDCG, with bootstrap intervals.

- **recall@k**: the share of queries with a right answer among the first k.
- **mrr**: 1 / the rank of the first right answer, averaged; 0 if it is not among the first 100.
- **ndcg@10**: the discounted gain of the right answers among the first 10, as a share of the most possible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptide.pairs.gallery import RightAnswers

MEASURES = ("recall@1", "recall@5", "recall@10", "mrr", "ndcg@10")
DEPTH = 100
_NDCG_DEPTH = 10
_CHUNK = 50

Scores = NDArray[np.float64]  # (queries, measures)
Ranking = NDArray[np.int64]  # (queries, up to DEPTH): positions of targets, best first; -1: another content
Figures = dict[str, float]
Intervals = dict[str, tuple[float, float]]

_DISCOUNTS = 1 / np.log2(np.arange(2, _NDCG_DEPTH + 2))


@dataclass(frozen=True, slots=True)
class Quality:
    """The scores of each query in one direction."""

    scores: Scores

    @property
    def figures(self) -> Figures:
        means = self.scores.mean(axis=0) if len(self.scores) else np.zeros(len(MEASURES))
        return {name: round(float(mean), 4) for name, mean in zip(MEASURES, means, strict=True)}

    def intervals(self, num_samples: int, seed: int = 0) -> Intervals:
        """Return the 95 % interval of each mean, over resamples of the queries."""
        return _intervals(self.scores, num_samples, seed)

    def slice(self, is_member: Sequence[bool]) -> Quality:
        return Quality(self.scores[np.asarray(is_member, dtype=bool)])


def score_rankings(ranking: Ranking, right: RightAnswers) -> Quality:
    """Score the ranking of each query that is asked."""
    rows = [score_one(row, right.of(query)) for query, row in zip(right.asked, ranking, strict=True)]
    return Quality(np.array(rows, dtype=np.float64).reshape(-1, len(MEASURES)))


def score_one(ranked: NDArray[np.int64], right: set[int]) -> list[float]:
    """Return the measures of one query. The right answers are positions of targets."""
    is_right = np.fromiter((int(n) in right for n in ranked[:DEPTH]), dtype=bool)
    hits = np.flatnonzero(is_right)
    first = int(hits[0]) if len(hits) else DEPTH
    gain = float(_DISCOUNTS[hits[hits < _NDCG_DEPTH]].sum())
    most = float(_DISCOUNTS[: len(right)].sum())
    mrr = 1 / (first + 1) if len(hits) else 0.0
    return [float(first < 1), float(first < 5), float(first < 10), mrr, gain / most if most else 0.0]


def difference(ours: Quality, theirs: Quality, num_samples: int, seed: int = 0) -> tuple[Figures, Intervals]:
    """Return ours minus theirs with its 95 % interval. Both are of the same queries, in the same order."""
    gaps = Quality(ours.scores - theirs.scores)
    return gaps.figures, gaps.intervals(num_samples, seed)


def _intervals(scores: Scores, num_samples: int, seed: int) -> Intervals:
    if not len(scores) or num_samples < 1:
        return {}
    rng = np.random.default_rng(seed)
    even = np.full(len(scores), 1 / len(scores))
    means = [
        rng.multinomial(len(scores), even, size=min(_CHUNK, num_samples - start)) @ scores / len(scores)
        for start in range(0, num_samples, _CHUNK)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5], axis=0)
    return {name: (round(float(low[i]), 4), round(float(high[i]), 4)) for i, name in enumerate(MEASURES)}


def members_by_value(right: RightAnswers, key: str) -> Mapping[str, list[bool]]:
    """Return which of the asked queries have each value of a metadata key, the largest slices first."""
    asked = [right.queries[number].values.get(key, ()) for number in right.asked]
    members = {value: [value in found for found in asked] for value in sorted(set().union(*asked))}
    return dict(sorted(members.items(), key=lambda item: -sum(item[1])))


@dataclass(frozen=True, slots=True)
class TwoWayQuality:
    """The quality of one model or service in both directions; None where a direction has no queries."""

    text_to_image: Quality | None
    image_to_text: Quality | None
    num_pairs: int

    @property
    def by_direction(self) -> dict[str, Quality | None]:
        return {"text_to_image": self.text_to_image, "image_to_text": self.image_to_text}

    @property
    def mean_recall(self) -> float:
        """Recall@1, averaged over the directions."""
        found = [quality.figures["recall@1"] for quality in self.by_direction.values() if quality is not None]
        return sum(found) / len(found) if found else 0.0

    @property
    def mean_rank(self) -> float:
        """The MRR, averaged over the directions."""
        found = [quality.figures["mrr"] for quality in self.by_direction.values() if quality is not None]
        return sum(found) / len(found) if found else 0.0

    def as_json(self) -> dict[str, object]:
        figures = {name: quality and quality.figures for name, quality in self.by_direction.items()}
        return {**figures, "num_pairs": self.num_pairs}
