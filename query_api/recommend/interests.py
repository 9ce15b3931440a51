"""What an owner is interested in: clusters of earlier uploads, each represented by one of them.

The method follows PinnerSage (Pal et al., arXiv:2007.03634). An owner has several interests, so the
mean of all uploads may be near none of them. A cluster is represented by its medoid, which is a real
content, and weighted by its size, in which older uploads count less. Clusters are found by average
linkage over cosine distances. Distances differ between encoders, so no fixed distance decides how many
clusters there are: it is the number with the best silhouette.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

MAX_INTERESTS = 8
HALF_LIFE_MS = 30 * 24 * 3600 * 1000.0
_MIN_SILHOUETTE = 0.15  # below this, the clusters are parts of one cloud, so there is one interest
_SAME_DISTANCE = 1e-3  # fp16 does not tell nearer embeddings apart


@dataclass(frozen=True, slots=True)
class PastUpload:
    """One upload of a history; `embedding` is a unit vector (dimension,)."""

    content_id: str
    embedding: Embeddings
    occurred_at_ms: int


@dataclass(frozen=True, slots=True)
class Interest:
    """A cluster of uploads. The weights of a history's interests sum to 1.

    `radius` is the cosine of the medoid with the cluster's farthest member.
    """

    medoid: PastUpload
    num_uploads: int
    weight: float
    radius: float


def find_interests(history: Sequence[PastUpload]) -> list[Interest]:
    """Return the interests that a history shows, the heaviest first. An empty history shows none."""
    if not history:
        return []
    embeddings = np.stack([upload.embedding for upload in history])
    cosines = np.clip(embeddings @ embeddings.T, -1.0, 1.0)
    labels = _cluster(1.0 - cosines)
    newest_ms = max(upload.occurred_at_ms for upload in history)
    ages = np.array([newest_ms - upload.occurred_at_ms for upload in history])
    recencies = 0.5 ** (ages / HALF_LIFE_MS)
    interests = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        within = cosines[np.ix_(members, members)]
        medoid = int(within.sum(axis=1).argmax())
        weight = float(recencies[members].sum() / recencies.sum())
        radius = float(within[medoid].min())
        interests.append(Interest(history[members[medoid]], len(members), weight, radius))
    return sorted(interests, key=lambda interest: (-interest.weight, interest.medoid.content_id))


def _cluster(distances: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return one label for each row of an (n, n) distance matrix."""
    from sklearn.cluster import AgglomerativeClustering  # here: with scipy it takes a second and 60 MB
    from sklearn.metrics import silhouette_score

    distances = np.maximum(distances, 0.0)
    np.fill_diagonal(distances, 0.0)
    best, best_silhouette = np.zeros(len(distances), np.int64), _MIN_SILHOUETTE
    if distances.max() < _SAME_DISTANCE:
        return best
    if len(distances) == 2:  # two uploads have no silhouette; different ones are two interests
        return np.arange(2)
    for num_clusters in range(2, min(MAX_INTERESTS, len(distances) - 1) + 1):
        model = AgglomerativeClustering(num_clusters, metric="precomputed", linkage="average")
        labels = model.fit_predict(distances)
        silhouette = float(silhouette_score(distances, labels, metric="precomputed"))
        if silhouette > best_silhouette:
            best, best_silhouette = labels, silhouette
    return best


def shares(weights: Sequence[float], num_results: int) -> list[int]:
    """Divide a number of results by weights (largest remainders): the shares sum to it."""
    exact = np.asarray(weights, np.float64) / sum(weights) * num_results
    whole = np.floor(exact).astype(np.int64)
    largest = np.argsort(whole - exact, kind="stable")[: num_results - int(whole.sum())]
    whole[largest] += 1
    return [int(share) for share in whole]
