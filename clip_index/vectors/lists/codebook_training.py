"""Trains codebooks: chooses which principal components have codes of their own, and what codes stand for."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.vectors.lists.codebook import (
    BITS,
    CODES_AT_ONCE,
    SUBSPACE,
    Codebook,
    CodebookArrays,
)

_DIMENSIONS_OF_COMPONENT_CODE = 16
"""There is one more code for so many dimensions, if components have codes of their own."""
_LEAST_SHARE = 0.3
"""Of the errors, which the components must cause that would have codes of their own."""
_LEAST_VARYING = 16
"""Components that vary least have codes of their own, too. Embeddings of the other modality differ from these
most in directions in which neither varies (Zhang et al., "Diagnosing and rectifying vision models using
language", 2023). So the scores of such queries would be off most by what lies in these directions.
"""
_LEAST_IMPORTANCE = 0.1
"""A query may lie anywhere. So no direction counts less than this share of the mean."""
_LOSS_OF_PAIR, _LOSS_OF_SINGLE = 0.107, 0.0095
"""The share of a normal variance that is lost by two bits and by four (Max, "Quantizing for minimum
distortion", 1960, table I; two dimensions that share a code lose a little less than with two bits each)."""
_FINE_FROM = (_LOSS_OF_PAIR - _LOSS_OF_SINGLE) / _LOSS_OF_SINGLE
"""How many times as much as the last component with a code of its own one must weigh to have two."""


def train_codebook(embeddings: Embeddings, differences: Embeddings) -> Codebook:
    """Return a codebook for embeddings, (n, dimension), that differ from their centroids by `differences`.

    Some thousand of these are enough, because each code has only 16 values.
    """
    dimension = embeddings.shape[1]
    seconds, directions = np.linalg.eigh(embeddings.T @ embeddings / len(embeddings))
    importance = np.maximum(seconds, _LEAST_IMPORTANCE * seconds.mean())
    weights = importance * (differences @ directions).var(axis=0)
    order = np.argsort(-weights, kind="stable")
    num_fine, num_components = _count_components(weights[order], dimension // _DIMENSIONS_OF_COMPONENT_CODE)
    if num_components:
        least = order[max(num_components, dimension - _LEAST_VARYING) :]
        order = np.concatenate([order[:num_components], least])
    else:
        order = order[:0]
    components = np.ascontiguousarray(directions.T[order], np.float16)
    return _train(components, differences, num_fine)


def _count_components(weights: NDArray[np.floating], num_codes: int) -> tuple[int, int]:
    """Return how many components have two codes of their own, and how many have one or two.

    `weights`, (dimension,), are descending; there are so many codes.
    """
    for num_single in range(num_codes, 0, -1):
        num_fine = num_codes - num_single
        if num_single <= num_fine or weights[num_fine] < _FINE_FROM * weights[num_single - 1]:
            break
    else:
        return 0, 0
    if weights[:num_single].sum() < _LEAST_SHARE * weights.sum():
        return 0, 0
    return num_fine, num_single


def _train(components: NDArray[np.float16], differences: Embeddings, num_fine: int) -> Codebook:
    """Train codes on differences, (n, dimension), of these components and of what is left."""
    num_components, dimension = components.shape
    of_components = np.full((num_components, SUBSPACE), -1, np.int16)
    of_components[:, 0] = np.arange(num_components)
    of_pairs = num_components + np.arange(dimension, dtype=np.int16).reshape(-1, SUBSPACE)
    num_first = num_components + len(of_pairs)
    unused = np.full((-(num_first + num_fine) % CODES_AT_ONCE, SUBSPACE), -1, np.int16)
    inputs = np.concatenate([of_components, of_pairs, unused, of_components[:num_fine]])
    values = np.zeros((len(inputs), 2**BITS, SUBSPACE), np.float16)
    arrays = CodebookArrays(components, inputs, values, np.zeros(num_components + dimension, np.float32))
    values[:num_first] = _train_values(Codebook(arrays).inputs_of(differences)[:, : num_first * SUBSPACE])
    if num_fine:
        exact = Codebook(arrays).inputs_of(differences)
        values[-num_fine:] = _train_values(exact[:, -num_fine * SUBSPACE :])
    arrays.losses[:] = Codebook(arrays).lost_along(differences)
    return Codebook(arrays)


def _train_values(inputs: Embeddings) -> NDArray[np.float16]:
    """Return what the codes of inputs, (n, 2 · codes), should stand for, (codes, 16, 2)."""
    quantiser = faiss.ProductQuantizer(inputs.shape[1], inputs.shape[1] // SUBSPACE, BITS)
    quantiser.cp.min_points_per_centroid = 1
    # Few are repeated, because FAISS asks for one for each value.
    quantiser.train(np.resize(inputs, (max(len(inputs), 2**BITS), inputs.shape[1])))
    values: NDArray[np.float16] = faiss.vector_to_array(quantiser.centroids).astype(np.float16)
    return values.reshape(quantiser.M, quantiser.ksub, quantiser.dsub)
