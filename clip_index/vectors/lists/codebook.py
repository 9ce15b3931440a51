"""What the codes beside inverted lists stand for: what embeddings differ from their centroids, in few bits.

A product quantiser (Jégou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011) has
codes of 16 values. Here they are codes of principal components: those that weigh most have two each, the
second of which refines the first, the next have one each, and the others share one, up to four of them. That
is how reverse water-filling assigns bits (Cover and Thomas, "Elements of Information Theory", 2nd edition,
section 10.3.3), but for one thing: every direction has codes. What is common to a rare kind of contents may
lie anywhere.

Codebooks of earlier releases have codes of a few components, and of pairs of dimensions of what is left
without these. They are read as well.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

BITS = 4
_MOST_SHARED = 64  # directions of a code in a file, whose bytes may be anything
CODES_AT_ONCE = 4  # in multiples of these, each list of codes begins at a multiple of 64 bytes
DIMENSIONS = 8  # an embedding has a multiple of these


class CodedQueries(NamedTuple):
    """Queries as codes are compared with them.

    `inputs` are (q, inputs of all codes). The error of a query's scores by codes has about the deviation in
    `deviations`, (q,).
    """

    inputs: Embeddings
    deviations: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CodebookArrays:
    """A codebook as it is stored, in this order: P components and M codes, each of up to S directions.

    Directions are the components, and then, if these are not all, the dimensions of what is left without
    them: D directions in all.
    """

    components: NDArray[np.float16]
    """Orthogonal unit vectors, (P, dimension)."""

    inputs: NDArray[np.int16]
    """The directions that each code stands for, (M, S); −1 for none.

    The last codes have the components of the first ones again, which they refine.
    """

    values: NDArray[np.float16]
    """What each value of a code stands for, (M, 16, S)."""

    losses: NDArray[np.float32]
    """The mean square that is lost in each direction, (D,)."""

    def fit(self, dimension: int) -> bool:
        """Whether these arrays are a codebook for embeddings of this dimension."""
        arrays: list[NDArray[Any]] = list(astuple(self))
        if [array.dtype for array in arrays] != [np.float16, np.int16, np.float16, np.float32]:
            return False
        if self.inputs.ndim != 2 or self.components.ndim != 2 or not may_have_codes(dimension):
            return False
        num_components, (num_codes, num_shared) = len(self.components), self.inputs.shape
        has_all = num_components == dimension == self.losses.size
        num_directions = dimension if has_all else num_components + dimension
        values = (num_codes, 2**BITS, num_shared)
        shapes = [(num_components, dimension), (num_codes, num_shared), values, (num_directions,)]
        if [array.shape for array in arrays] != shapes or not 0 < num_shared <= _MOST_SHARED:
            return False
        is_divisible = num_codes > 0 and num_codes % CODES_AT_ONCE == 0
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
        self.num_codes, self._num_shared = arrays.inputs.shape
        self.num_inputs = arrays.inputs.size
        self.code_bytes = self.num_codes * BITS // 8
        self.components: Embeddings = np.ascontiguousarray(arrays.components, np.float32)
        """Orthogonal unit vectors, (P, dimension)."""
        self._pointer = faiss.swig_ptr(self.components)
        self._values = arrays.values.astype(np.float32)
        self.has_all_components = len(arrays.components) == len(arrays.losses)
        """Whether the directions are as many components as there are dimensions."""
        self._num_fine = arrays.num_fine
        self._inputs = arrays.inputs.ravel().astype(np.int64)
        self._is_input = (self._inputs >= 0).astype(np.float32)
        self._ranges = np.ptp(self._values, axis=1).ravel()

    def along(self, queries: Embeddings) -> Embeddings:
        """Return queries, (q, dimension), along all directions: (q, D).

        What is returned for a query does not depend on the others. FAISS multiplies in this thread alone,
        which takes less than to wake others.
        """
        if not self.has_all_components:
            return np.concatenate([self._along(query[None]) for query in queries])
        along = np.empty(queries.shape, np.float32)
        for query, of_query in zip(queries, along, strict=True):
            pointers = faiss.swig_ptr(of_query), faiss.swig_ptr(query), self._pointer
            faiss.fvec_inner_products_ny(*pointers, queries.shape[1], len(self.components))
        return along

    def code_queries(self, along: Embeddings) -> CodedQueries:
        """Return queries along all directions, (q, D), as codes are compared with them."""
        inputs = self._select(along)
        # FAISS rounds what each value adds to a score, to a 255th of the widest range of a code.
        ranges = (np.abs(inputs) * self._ranges).reshape(len(along), -1, self._num_shared).sum(axis=2)
        rounded = self.num_codes / 12 * np.square(ranges.max(axis=1) / 255)
        return CodedQueries(inputs, np.sqrt(np.square(along) @ self.arrays.losses + rounded))

    def inputs_of(self, differences: Embeddings) -> Embeddings:
        """Return what codes of differences, (n, dimension), stand for exactly, (n, inputs of all codes)."""
        inputs = self._select(self._along(differences))
        if self._num_fine:
            num_coarse = self._num_fine * self._num_shared
            coarse = np.ascontiguousarray(inputs[:, :num_coarse])
            inputs[:, -num_coarse:] -= _quantise(self._values[: self._num_fine], coarse)
        return inputs

    def decode(self, differences: Embeddings) -> Embeddings:
        """Return what the codes of differences, (n, dimension), give back."""
        along = self._decode_along(differences)
        num_components = len(self.components)
        if self.has_all_components:
            all_of_it: Embeddings = along @ self.components
            return all_of_it
        beside = along[:, num_components:]
        # Codes of what is left are compared with what is left of a query.
        left: Embeddings = beside - (beside @ self.components.T) @ self.components
        return left + along[:, :num_components] @ self.components

    def _decode_along(self, differences: Embeddings) -> Embeddings:
        """Return what codes give back in each direction, (n, directions)."""
        given_back = _quantise(self._values, self.inputs_of(differences))
        along = np.zeros((len(differences), len(self.arrays.losses)), np.float32)
        num_first = self.num_inputs - self._num_fine * self._num_shared
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
        projected: Embeddings = vectors @ self.components.T
        if self.has_all_components:
            return projected
        return np.concatenate([projected, vectors - projected @ self.components], axis=1)

    def _select(self, along: Embeddings) -> Embeddings:
        inputs: Embeddings = along.take(self._inputs, axis=1)
        inputs *= self._is_input
        return inputs


def may_have_codes(dimension: int) -> bool:
    """Whether embeddings of this dimension can have codes."""
    return dimension % DIMENSIONS == 0


def _quantise(values: Embeddings, inputs: Embeddings) -> Embeddings:
    """Return inputs, (n, inputs), as codes with these values, (codes, 16, S), give them back."""
    quantiser = faiss.ProductQuantizer(inputs.shape[1], len(values), BITS)
    faiss.copy_array_to_vector(np.ascontiguousarray(values).ravel(), quantiser.centroids)
    decoded: Embeddings = quantiser.decode(quantiser.compute_codes(np.ascontiguousarray(inputs)))
    return decoded
