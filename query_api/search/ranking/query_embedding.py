"""What a search looks for: a direction in the space of embeddings."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings, Modality, unit_mean
from query_api.errors import ApiError
from query_api.percentiles.scale import PercentileScale

_SAFE_NORM = 1e-100
MIN_NORM = 1e-6  # a sum of unit vectors, weights adding up to 1, that is shorter is rounding


@dataclass(frozen=True, slots=True)
class QueryEmbedding:
    """One unit vector of shape (dimension,), float32, and the content ids that must not be answered.

    `crops` are the embeddings of a wide picture's crops, (crops, dimension): each content is ranked by the
    crop that it is nearest to. `embedding` is their mean then, for whatever needs one direction.
    `modality` is that of the text, picture or content asked for, None for numbers and combinations.
    `scales` are the percentile scales of the hits, by the hits' modality, as far as there are any.
    """

    embedding: Embeddings
    excluded_ids: frozenset[str] = frozenset()
    modality: Modality | None = None
    scales: Mapping[Modality, PercentileScale] = field(default_factory=dict)
    crops: Embeddings | None = None

    @classmethod
    def of_picture(cls, crops: Embeddings, excluded_ids: frozenset[str] = frozenset()) -> QueryEmbedding:
        """Look for what is like a picture, of which all embeddings are given."""
        is_wide = len(crops) > 1
        return cls(unit_mean(crops), excluded_ids, "image", crops=crops if is_wide else None)

    @property
    def searched(self) -> Embeddings:
        """The directions to search for, (directions ≥ 1, dimension)."""
        return self.embedding[np.newaxis] if self.crops is None else self.crops


def embedding_from_numbers(numbers: Sequence[float], dimension: int) -> Embeddings:
    """Return the direction of a caller's finite numbers; `ApiError` for a wrong length or all zeros."""
    if len(numbers) != dimension:
        message = f"vector has {len(numbers)} numbers, the encoder's embeddings have {dimension}"
        raise ApiError("wrong_dimension", message)
    vector = np.frombuffer(_doubles(dimension).pack(*numbers))  # half the time of np.array
    norm = math.hypot(*numbers)
    if not _SAFE_NORM < norm < 1 / _SAFE_NORM:
        return _direction_of_extreme(vector)
    return (vector / norm).astype(np.float32)


@cache
def _doubles(dimension: int) -> struct.Struct:
    return struct.Struct(f"{dimension}d")


def _direction_of_extreme(vector: NDArray[np.float64]) -> Embeddings:
    """Scale the numbers first, because their squares are too large or too small to be added up."""
    largest = np.abs(vector).max()
    if largest == 0.0:
        raise ApiError("zero_vector", "vector has no direction: all of its numbers are zero")
    vector = vector / largest
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def combined_embedding(embeddings: Sequence[Embeddings], weights: Sequence[float]) -> Embeddings:
    """Return the direction of a weighted sum of unit vectors; `ApiError` (zero_vector) if they cancel out."""
    total = np.asarray(weights, np.float64) @ np.stack(embeddings).astype(np.float64)
    norm = float(np.linalg.norm(total))
    if norm <= MIN_NORM * np.abs(weights).sum():
        raise ApiError("zero_vector", "the terms cancel each other out: their sum has no direction")
    return np.asarray(total / norm, dtype=np.float32)


def combined_query(parts: Sequence[QueryEmbedding], weights: Sequence[float]) -> QueryEmbedding:
    """Look for a weighted sum, and answer none of the contents that its parts were made of."""
    embedding = combined_embedding([part.embedding for part in parts], weights)
    return QueryEmbedding(embedding, frozenset[str]().union(*(part.excluded_ids for part in parts)))
