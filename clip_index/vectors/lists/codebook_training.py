"""Trains codebooks: chooses which principal components share a code, and what codes stand for."""

from __future__ import annotations

from itertools import pairwise

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.vectors.lists.code_assignment import assign_codes
from clip_index.vectors.lists.codebook import BITS, CODES_AT_ONCE, Codebook, CodebookArrays

_LEAST_IMPORTANCE = 0.1
"""A query may lie anywhere. So no direction counts less than this share of the mean."""
_RARE_PART, _RARE_VARIANCE = 1 / 2, 2.0
"""What is common to a rare kind of contents may lie anywhere, also where the others hardly vary, and codes
that are trained with these alone would lose most of it. So codes are also trained with half as many vectors
whose variance is twice the mean in each direction where it is less. Of what a kind has in common that differs
from all others by 0.6 in a direction of its own, codes for a power-law spectrum then lose 0.33, and 0.62
otherwise; the errors of usual scores are a twentieth greater."""
_SEED = 5


def train_codebook(embeddings: Embeddings, differences: Embeddings) -> Codebook:
    """Return a codebook for embeddings, (n, dimension), that differ from their centroids by `differences`.

    Some thousand of these are enough, because each code has only 16 values.
    """
    variances, directions = np.linalg.eigh(differences.T @ differences / len(differences))
    importance = np.square(embeddings @ directions).mean(axis=0)
    importance = np.maximum(importance, _LEAST_IMPORTANCE * importance.mean())
    weights = importance * np.maximum(variances, variances.mean())
    order = np.argsort(-weights, kind="stable")
    shares = assign_codes(weights[order])
    components = np.ascontiguousarray(directions.T[order], np.float16)
    return _train(components, _inputs_of_codes(shares), differences)


def _inputs_of_codes(shares: list[list[int]]) -> NDArray[np.int16]:
    """Return the components of each code, (codes, S), with −1 for none, and of those that refine them last.

    `shares` are the components of each code. One that has two codes is in it twice.
    """
    twice = {share[0] for before, share in pairwise(shares) if before == share}
    fine = [share for share in shares if share[0] in twice][::2]
    first = [*fine, *(share for share in shares if share[0] not in twice)]
    first += [[]] * (-(len(first) + len(fine)) % CODES_AT_ONCE)
    inputs = np.full((len(first) + len(fine), max(map(len, first))), -1, np.int16)
    for own, share in zip(inputs, [*first, *fine], strict=True):
        own[: len(share)] = share
    return inputs


def _train(components: NDArray[np.float16], inputs: NDArray[np.int16], differences: Embeddings) -> Codebook:
    """Train codes of all components, (dimension, dimension), on differences, (n, dimension)."""
    values = np.zeros((len(inputs), 2**BITS, inputs.shape[1]), np.float16)
    arrays = CodebookArrays(components, inputs, values, np.zeros(len(components), np.float32))
    trained = np.concatenate([differences, _rare(differences, components.astype(np.float32))])
    num_fine = arrays.num_fine
    num_first = len(inputs) - num_fine
    exact = Codebook(arrays).inputs_of(trained).reshape(len(trained), *inputs.shape)
    values[:num_first] = _train_values(exact[:, :num_first])
    if num_fine:
        del exact  # a hundred megabytes and more
        exact = Codebook(arrays).inputs_of(trained).reshape(len(trained), *inputs.shape)
        values[num_first:] = _train_values(exact[:, num_first:])
    arrays.losses[:] = Codebook(arrays).lost_along(differences)
    return Codebook(arrays)


def _rare(differences: Embeddings, components: Embeddings) -> Embeddings:
    """Return differences, (n, dimension), as a rare kind of embeddings may have them."""
    some = differences[: int(np.ceil(_RARE_PART * len(differences)))]
    variances = np.square(differences @ components.T).mean(axis=0)
    further = np.sqrt(np.maximum(0, _RARE_VARIANCE * variances.mean() - variances))
    noise = np.random.default_rng(_SEED).standard_normal(some.shape, np.float32)
    rare: Embeddings = some + (further * noise) @ components
    return rare


def _train_values(inputs: Embeddings) -> NDArray[np.float16]:
    """Return what the codes of inputs, (n, codes, S), should stand for, (codes, 16, S)."""
    num_codes, num_shared = inputs.shape[1:]
    quantiser = faiss.ProductQuantizer(num_codes * num_shared, num_codes, BITS)
    quantiser.cp.min_points_per_centroid = 1
    inputs = inputs.reshape(len(inputs), -1)
    if len(inputs) < 2**BITS:  # FAISS asks for one for each value
        inputs = np.resize(inputs, (2**BITS, inputs.shape[1]))
    quantiser.train(np.ascontiguousarray(inputs))
    values: NDArray[np.float16] = faiss.vector_to_array(quantiser.centroids).astype(np.float16)
    return values.reshape(num_codes, quantiser.ksub, num_shared)
