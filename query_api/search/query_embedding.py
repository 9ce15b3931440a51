"""What a search looks for."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings, Modality
from query_api.errors import ApiError
from query_api.percentiles.scale import PercentileScale

_SAFE_NORM = 1e-100
MIN_NORM = 1e-6  # below, a sum of unit vectors whose weights add up to 1 is rounding


@dataclass(frozen=True, slots=True)
class QueryEmbedding:
    """One unit vector of shape (dimension,), float32, and the content ids that must not be answered.

    `modality` is what was asked by, None for numbers and combinations; `scales` are the percentile
    scales of its hits, as far as there are any.
    """

    embedding: Embeddings
    excluded_ids: frozenset[str] = frozenset()
    modality: Modality | None = None
    scales: Mapping[Modality, PercentileScale] = field(default_factory=dict)


def embedding_from_numbers(numbers: Sequence[float], dimension: int) -> Embeddings:
    """Return the direction of a caller's finite numbers; `ApiError` for a wrong length or all zeros."""
    if len(numbers) != dimension:
        message = f"vector has {len(numbers)} numbers, the encoder's embeddings have {dimension}"
        raise ApiError("wrong_dimension", message)
    vector = np.frombuffer(struct.pack(f"{dimension}d", *numbers))  # np.array takes twice as long
    norm = math.hypot(*numbers)
    if not _SAFE_NORM < norm < 1 / _SAFE_NORM:
        return _direction_of_extreme(vector)
    return (vector / norm).astype(np.float32)


def _direction_of_extreme(vector: NDArray[np.float64]) -> Embeddings:
    """Numbers whose squares are too large or too small to add up are scaled first."""
    largest = np.abs(vector).max()
    if largest == 0.0:
        raise ApiError("zero_vector", "vector has no direction: all of its numbers are zero")
    vector = vector / largest
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def combined_embedding(embeddings: Sequence[Embeddings], weights: Sequence[float]) -> Embeddings:
    """Return the direction of a weighted sum of unit vectors; `ApiError` where they cancel out."""
    total = np.asarray(weights, np.float64) @ np.stack(embeddings).astype(np.float64)
    norm = float(np.linalg.norm(total))
    if norm <= MIN_NORM * np.abs(weights).sum():
        raise ApiError("zero_vector", "the terms cancel each other out: their sum has no direction")
    return np.asarray(total / norm, dtype=np.float32)
