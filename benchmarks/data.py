"""Generated rows and queries for the figures of the index; the same seed gives the same rows.

They are unit vectors of 512 dimensions with CLIP's modality gap: the mean cosine of two texts
and of two images is 0.5, that of a text and an image 0.2 (± 0.05, tested). The vectors lie in
clusters, and 5 % of the rows repeat another row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings, Modality

DIMENSION = 512
NUM_PARTITIONS = 4
SAME_MODALITY_COSINE = 0.5
CROSS_MODALITY_COSINE = 0.2
REPEATED_SHARE = 0.05
_NUM_CLUSTERS = 256
_CLUSTER_WEIGHT = 0.5


@dataclass(frozen=True, slots=True)
class Space:
    """Directions drawn from a seed: a mean for each modality, and clusters that both share."""

    means: dict[Modality, Embeddings]
    clusters: Embeddings


def draw_space(seed: int) -> Space:
    """Draw two modality means of the required angle, and clusters orthogonal to both."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((DIMENSION, 2)))[0].T
    cosine = CROSS_MODALITY_COSINE / SAME_MODALITY_COSINE
    image = cosine * basis[0] + np.sqrt(1 - cosine**2) * basis[1]
    clusters = random.standard_normal((_NUM_CLUSTERS, DIMENSION))
    clusters -= clusters @ basis.T @ basis
    return Space({"text": _f32(basis[0]), "image": _f32(image)}, _normalised(clusters))


def draw_rows(space: Space, modality: Modality, num_rows: int, seed: int) -> Embeddings:
    """Return (num_rows, 512) float32 unit vectors of one modality, 5 % of them repeated rows."""
    random = np.random.default_rng((seed, len(modality)))
    rows = np.empty((num_rows, DIMENSION), np.float32)
    for first in range(0, num_rows, 65536):
        last = min(first + 65536, num_rows)
        rows[first:last] = _block(space, modality, last - first, random)
    repeated = random.random(num_rows) < REPEATED_SHARE
    rows[repeated] = rows[random.integers(0, num_rows, int(repeated.sum()))]
    return rows


def draw_queries(space: Space, modality: Modality, num_queries: int, seed: int) -> Embeddings:
    """Return fresh unit vectors like the rows of a modality."""
    random = np.random.default_rng((seed, len(modality), 1))
    return _block(space, modality, num_queries, random)


def _block(space: Space, modality: Modality, num_rows: int, random: np.random.Generator) -> Embeddings:
    """Draw rows in which the mean has a share of √0.5, so that the mean cosine of two rows is 0.5."""
    cluster = space.clusters[random.integers(0, _NUM_CLUSTERS, num_rows)]
    noise = random.standard_normal((num_rows, DIMENSION), np.float32) / np.sqrt(DIMENSION)
    own = np.sqrt(_CLUSTER_WEIGHT) * cluster + np.sqrt(1 - _CLUSTER_WEIGHT) * noise
    share = SAME_MODALITY_COSINE
    return _normalised(np.sqrt(share) * space.means[modality] + np.sqrt(1 - share) * own)


def _normalised(rows: NDArray[np.floating]) -> Embeddings:
    return _f32(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def _f32(rows: NDArray[np.floating]) -> Embeddings:
    return np.ascontiguousarray(rows, np.float32)
