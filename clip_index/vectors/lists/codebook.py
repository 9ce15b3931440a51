"""What the codes beside inverted lists stand for: a product quantiser of 4 bits for two dimensions each.

Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

SUBSPACE = 2
"""Dimensions that share a code."""
BITS = 4
_DIMENSIONS = 8  # in multiples of these, each list of codes begins at a multiple of 64 bytes


def may_have_codes(dimension: int) -> bool:
    """Whether embeddings of this dimension can have codes."""
    return dimension % _DIMENSIONS == 0


def train_codebook(differences: Embeddings) -> NDArray[np.float16]:
    """Return what each code stands for: (dimension ÷ 2, 16, 2), from embeddings less their centroids.

    Some thousand of these, (n, dimension), are enough: each pair of dimensions has 16 codes.
    """
    quantiser = faiss.ProductQuantizer(differences.shape[1], differences.shape[1] // SUBSPACE, BITS)
    quantiser.cp.min_points_per_centroid = 1
    num_trained = max(
        len(differences), 2**BITS
    )  # fewer are repeated, because FAISS asks for one for each code
    quantiser.train(np.resize(differences, (num_trained, differences.shape[1])))
    shape = (quantiser.M, quantiser.ksub, quantiser.dsub)
    codebook: NDArray[np.float16] = (
        faiss.vector_to_array(quantiser.centroids).reshape(shape).astype(np.float16)
    )
    return codebook


def fits_codebook(codebook: NDArray[Any], dimension: int) -> bool:
    """Whether an array is a codebook for embeddings of this dimension."""
    expected = (dimension // SUBSPACE, 2**BITS, SUBSPACE)
    if not may_have_codes(dimension) or codebook.dtype != np.float16 or codebook.shape != expected:
        return False
    return all(np.isfinite(codebook).ravel().tolist())


def decode(codebook: NDArray[np.float16], differences: Embeddings) -> Embeddings:
    """Return what the codes of some differences, (n, dimension), give back."""
    quantiser = faiss.ProductQuantizer(differences.shape[1], len(codebook), BITS)
    fill(quantiser, codebook)
    decoded: Embeddings = quantiser.decode(quantiser.compute_codes(differences))
    return decoded


def fill(quantiser: Any, codebook: NDArray[np.float16]) -> None:
    """Give a product quantiser of FAISS what its codes stand for."""
    faiss.copy_array_to_vector(codebook.astype(np.float32).ravel(), quantiser.centroids)
