"""What the codes beside inverted lists stand for: what embeddings differ from their centroids, in few bits.

A product quantiser (Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011) with
16 values a code stores two dimensions in each. Where some principal components hold much of the variance,
most of the errors would be theirs. So these are taken out and have codes of their own: those that weigh most
have two each, the second of which refines the first, and the others one. That is how reverse water-filling
assigns bits (Cover and Thomas, "Elements of Information Theory", 2nd edition, section 10.3.3), but for one
thing: every direction has codes. What is common to a rare kind of contents may lie anywhere.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

BITS = 4
SUBSPACE = 2
"""Dimensions that share a code."""
_CODES_AT_ONCE = 4  # in multiples of these, each list of codes begins at a multiple of 64 bytes
_DIMENSIONS = 8  # an embedding has a multiple of these
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


class CodedQueries(NamedTuple):
    """Queries as codes are compared with them.

    `inputs` are (q, 2 · codes). The error of a query's scores by codes has about the deviation in
    `deviations`, (q,).
    """

    inputs: Embeddings
    deviations: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CodebookArrays:
    """A codebook as it is stored, in this order: P components and M codes.

    Directions are the components, and then the dimensions of what is left without them.
    """

    components: NDArray[np.float16]
    """Orthogonal unit vectors, (P, dimension)."""

    inputs: NDArray[np.int16]
    """The two directions that each code stands for, (M, 2); −1 for none.

    The last codes have the components of the first ones again, which they refine.
    """

    values: NDArray[np.float16]
    """What each value of a code stands for, (M, 16, 2)."""

    losses: NDArray[np.float32]
    """The mean square that is lost in each direction, (P + dimension,)."""

    def fit(self, dimension: int) -> bool:
        """Whether these arrays are a codebook for embeddings of this dimension."""
        arrays: list[NDArray[Any]] = list(astuple(self))
        if [array.dtype for array in arrays] != [np.float16, np.int16, np.float16, np.float32]:
            return False
        num_directions, num_codes = self.losses.size, self.inputs.size // SUBSPACE
        components = (num_directions - dimension, dimension)
        values = (num_codes, 2**BITS, SUBSPACE)
        shapes = [components, (num_codes, SUBSPACE), values, (num_directions,)]
        if [array.shape for array in arrays] != shapes or not may_have_codes(dimension):
            return False
        is_divisible = num_codes > 0 and num_codes % _CODES_AT_ONCE == 0
        if not is_divisible or self.inputs.min() < -1 or self.inputs.max() >= num_directions:
            return False
        if not all(np.isfinite(array).all() for array in arrays) or self.losses.min() < 0:
            return False
        num_first = num_codes - self.num_fine
        used = self.inputs[:num_first][self.inputs[:num_first] >= 0]
        refined = self.inputs[: self.num_fine]
        return (
            2 * self.num_fine <= num_codes
            and len(np.unique(used)) == len(used)
            and np.array_equal(self.inputs[num_first:], refined)
        )

    @property
    def num_fine(self) -> int:
        """How many codes refine others."""
        used = self.inputs[self.inputs >= 0]
        return len(used) - len(np.unique(used))


class Codebook:
    """What codes stand for. Immutable and thread-safe."""

    def __init__(self, arrays: CodebookArrays) -> None:
        self.arrays = arrays
        self.num_codes = len(arrays.inputs)
        self.num_inputs = self.num_codes * SUBSPACE
        self.code_bytes = self.num_codes * BITS // 8
        self._components = arrays.components.astype(np.float32)
        self._values = arrays.values.astype(np.float32)
        self._num_fine = arrays.num_fine
        self._inputs = arrays.inputs.ravel().astype(np.int64)
        self._is_input = (self._inputs >= 0).astype(np.float32)
        self._ranges = np.ptp(self._values, axis=1).ravel()

    def code_queries(self, queries: Embeddings) -> CodedQueries:
        """Return queries, (q, dimension), as codes are compared with them."""
        along = self._along(queries)
        inputs = self._select(along)
        # FAISS rounds what each value adds to a score, to a 255th of the widest range of a code.
        ranges = (np.abs(inputs) * self._ranges).reshape(len(queries), -1, SUBSPACE).sum(axis=2)
        rounded = self.num_codes / 12 * np.square(ranges.max(axis=1) / 255)
        return CodedQueries(inputs, np.sqrt(np.square(along) @ self.arrays.losses + rounded))

    def inputs_of(self, differences: Embeddings) -> Embeddings:
        """Return what the codes of differences, (n, dimension), stand for exactly, (n, 2 · codes)."""
        inputs = self._select(self._along(differences))
        if self._num_fine:
            num_coarse = self._num_fine * SUBSPACE
            coarse = np.ascontiguousarray(inputs[:, :num_coarse])
            inputs[:, -num_coarse:] -= _quantise(self._values[: self._num_fine], coarse)
        return inputs

    def decode(self, differences: Embeddings) -> Embeddings:
        """Return what the codes of differences, (n, dimension), give back."""
        along = self._decode_along(differences)
        num_components = len(self._components)
        beside = along[:, num_components:]
        # Codes of what is left are compared with what is left of a query.
        left: Embeddings = beside - (beside @ self._components.T) @ self._components
        return left + along[:, :num_components] @ self._components

    def _decode_along(self, differences: Embeddings) -> Embeddings:
        """Return what codes give back in each direction, (n, directions)."""
        given_back = _quantise(self._values, self.inputs_of(differences))
        along = np.zeros((len(differences), len(self.arrays.losses)), np.float32)
        num_first = self.num_inputs - self._num_fine * SUBSPACE
        for codes in (slice(num_first), slice(num_first, None)):  # in each of which directions are distinct
            is_input = self._inputs[codes] >= 0
            along[:, self._inputs[codes][is_input]] += given_back[:, codes][:, is_input]
        return along

    def lost_along(self, differences: Embeddings) -> NDArray[np.float32]:
        """Return the mean square that is lost of differences, (n, dimension), in each direction."""
        lost = self._along(differences) - self._decode_along(differences)
        squares: NDArray[np.float32] = np.square(lost).mean(axis=0)
        return squares

    def fill(self, quantiser: Any) -> None:
        """Give a product quantiser of FAISS what its codes stand for."""
        faiss.copy_array_to_vector(self._values.ravel(), quantiser.centroids)

    def _along(self, vectors: Embeddings) -> Embeddings:
        """Return vectors, (n, dimension), along all directions: (n, directions)."""
        projected = vectors @ self._components.T
        return np.concatenate([projected, vectors - projected @ self._components], axis=1)

    def _select(self, along: Embeddings) -> Embeddings:
        inputs: Embeddings = along.take(self._inputs, axis=1)
        inputs *= self._is_input
        return inputs


def may_have_codes(dimension: int) -> bool:
    """Whether embeddings of this dimension can have codes."""
    return dimension % _DIMENSIONS == 0


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
    unused = np.full((-(num_first + num_fine) % _CODES_AT_ONCE, SUBSPACE), -1, np.int16)
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


def _quantise(values: Embeddings, inputs: Embeddings) -> Embeddings:
    """Return inputs, (n, 2 · codes), as codes with these values, (codes, 16, 2), give them back."""
    quantiser = faiss.ProductQuantizer(inputs.shape[1], len(values), BITS)
    faiss.copy_array_to_vector(np.ascontiguousarray(values).ravel(), quantiser.centroids)
    decoded: Embeddings = quantiser.decode(quantiser.compute_codes(np.ascontiguousarray(inputs)))
    return decoded
