"""Generated rows and queries for the figures of the index; the same seed gives the same rows.

They are unit vectors of 512 dimensions with CLIP's modality gap: the mean cosine of two texts
and of two images is 0.5, that of a text and an image 0.2 (± 0.05, tested). 5 % of the rows repeat
another row. There are two kinds:

- `clustered`: the vectors lie in 256 clusters. A search that looks near a query finds everything.
- `spectrum`: there are no clusters, and the variances of the directions follow a power law (the
  n-th direction has 1/n of the first one's), as the principal components of learned embeddings
  roughly do. The ten best rows of a query lie in many places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

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
_NUM_MEANS = 2

Kind: TypeAlias = Literal["clustered", "spectrum"]
KINDS: tuple[Kind, ...] = ("clustered", "spectrum")


@dataclass(frozen=True, slots=True)
class Space:
    """Directions drawn from a seed: a mean for each modality, and what lies around both means.

    `own` are cluster centres, (clusters, 512), or directions whose lengths are their deviations,
    (directions, 512).
    """

    kind: Kind
    means: dict[Modality, Embeddings]
    own: Embeddings


def draw_space(seed: int, kind: Kind = "clustered") -> Space:
    """Draw two modality means of the required angle, and clusters or a spectrum orthogonal to both."""
    random = np.random.default_rng(seed)
    basis = np.linalg.qr(random.standard_normal((DIMENSION, _NUM_MEANS)))[0].T
    cosine = CROSS_MODALITY_COSINE / SAME_MODALITY_COSINE
    image = cosine * basis[0] + np.sqrt(1 - cosine**2) * basis[1]
    own = _draw_clusters(basis, random) if kind == "clustered" else _draw_spectrum(basis, random)
    return Space(kind, {"text": _f32(basis[0]), "image": _f32(image)}, own)


def _draw_clusters(means: NDArray[np.float64], random: np.random.Generator) -> Embeddings:
    clusters = random.standard_normal((_NUM_CLUSTERS, DIMENSION))
    clusters -= clusters @ means.T @ means
    return _normalised(clusters)


def _draw_spectrum(means: NDArray[np.float64], random: np.random.Generator) -> Embeddings:
    """Return orthogonal directions; their squared lengths fall as 1/n and sum to 1."""
    drawn = np.concatenate([means, random.standard_normal((DIMENSION - _NUM_MEANS, DIMENSION))])
    directions = np.linalg.qr(drawn.T)[0].T[_NUM_MEANS:]
    variances = 1 / np.arange(1, len(directions) + 1)
    return _f32(directions * np.sqrt(variances / variances.sum())[:, None])


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


def draw_far_queries(num_queries: int, seed: int) -> Embeddings:
    """Return random directions, which are far from the rows of every space."""
    return _normalised(np.random.default_rng((seed, 2)).standard_normal((num_queries, DIMENSION)))


def sum_of(first: Embeddings, second: Embeddings) -> Embeddings:
    """Return unit vectors between two sets of queries, pair by pair, as weighted terms are asked."""
    return _normalised(first + second)


def _block(space: Space, modality: Modality, num_rows: int, random: np.random.Generator) -> Embeddings:
    """The share of the mean in a unit vector is √0.5, so that two rows' mean cosine is 0.5."""
    draw = _draw_clustered if space.kind == "clustered" else _draw_unclustered
    own = draw(space, num_rows, random)
    share = SAME_MODALITY_COSINE
    return _normalised(np.sqrt(share) * space.means[modality] + np.sqrt(1 - share) * own)


def _draw_clustered(space: Space, num_rows: int, random: np.random.Generator) -> NDArray[np.floating]:
    cluster = space.own[random.integers(0, _NUM_CLUSTERS, num_rows)]
    noise = random.standard_normal((num_rows, DIMENSION), np.float32) / np.sqrt(DIMENSION)
    own: NDArray[np.floating] = np.sqrt(_CLUSTER_WEIGHT) * cluster + np.sqrt(1 - _CLUSTER_WEIGHT) * noise
    return own


def _draw_unclustered(space: Space, num_rows: int, random: np.random.Generator) -> NDArray[np.floating]:
    own: NDArray[np.floating] = random.standard_normal((num_rows, len(space.own)), np.float32) @ space.own
    return own


def _normalised(rows: NDArray[np.floating]) -> Embeddings:
    return _f32(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def _f32(rows: NDArray[np.floating]) -> Embeddings:
    return np.ascontiguousarray(rows, np.float32)
