"""What the codes beside inverted lists stand for: the principal components of embeddings, in few bits.

A score by codes should be off by little for usual queries, which resemble the embeddings themselves. So the
principal components of the embeddings are coded: in them queries differ most. A product quantiser (Jégou,
Douze and Schmid, "Product quantization for nearest neighbor search", 2011) with 16 values a code stores what
an embedding differs from its centroid. The components that weigh most have two codes each, the second of
which refines the first; the next ones have one; further ones share one in pairs; the last ones have none.
How many there are of each kind follows from the variances, as reverse water-filling assigns bits (Cover and
Thomas, "Elements of Information Theory", 2nd edition, section 10.3.3).
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
"""Components that share a code, at most."""
_CODES_AT_ONCE = 4  # in multiples of these, each list of codes begins at a multiple of 64 bytes
_DIMENSIONS = 8  # an embedding has a multiple of these
_DIMENSIONS_OF_CODE = (8, 4, 2)
_MAX_LOSS = 0.2
"""The fewest codes are taken by which scores are off by less than this share of their deviation.

With a power-law spectrum of variances a code for each eight dimensions suffices: scores are off by a tenth.
If all variances are equal, there is a code for each two dimensions, and scores are off by a third.
"""
_LEAST_IMPORTANCE = 0.1
"""A query may lie anywhere. So no direction counts less than this share of the mean."""

_LEAST_VARYING = 16
"""Components without a code whose losses are kept: those that vary least. Embeddings of the other modality
differ from these most in directions in which neither varies (Zhang et al., "Diagnosing and rectifying vision
models using language", 2023), and such queries would seem to lose what they do not."""

_LOSS_OF_PAIR, _LOSS_OF_SINGLE = 0.107, 0.0095
"""The share of a normal variance that is lost by two bits and by four (Max, "Quantizing for minimum
distortion", 1960, table I; a pair of components loses a little less than two that are coded alone)."""
_GAIN_OF_PAIR = 2 * (1 - _LOSS_OF_PAIR)
_SINGLE_FROM = _GAIN_OF_PAIR / (2 * (_LOSS_OF_PAIR - _LOSS_OF_SINGLE))
_FINE_FROM = _GAIN_OF_PAIR / _LOSS_OF_SINGLE
"""How many times as much as the last pair a component must weigh, so that one more code gains as much."""


class CodedQueries(NamedTuple):
    """Queries as codes are compared with them.

    `inputs` are (q, 2 · codes). The error of a query's scores by codes has about the deviation in
    `deviations`, (q,).
    """

    inputs: Embeddings
    deviations: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class CodebookArrays:
    """A codebook as it is stored, in this order: P components and M codes."""

    components: NDArray[np.float16]
    """Orthogonal unit vectors, (P, dimension). The last ones may have no code."""

    inputs: NDArray[np.int16]
    """The two components that each code stands for, (M, 2); −1 for none.

    The last codes have the components of the first ones again, which they refine.
    """

    values: NDArray[np.float16]
    """What each value of a code stands for, (M, 16, 2)."""

    losses: NDArray[np.float32]
    """The mean square that is lost of each component, and of each direction beside them, (P + 1,)."""

    def fit(self, dimension: int) -> bool:
        """Whether these arrays are a codebook for embeddings of this dimension."""
        arrays: list[NDArray[Any]] = list(astuple(self))
        if [array.dtype for array in arrays] != [np.float16, np.int16, np.float16, np.float32]:
            return False
        num_components, num_codes = self.losses.size - 1, self.inputs.size // SUBSPACE
        values = (num_codes, 2**BITS, SUBSPACE)
        shapes = [(num_components, dimension), (num_codes, SUBSPACE), values, (num_components + 1,)]
        if [array.shape for array in arrays] != shapes or not may_have_codes(dimension):
            return False
        is_divisible = num_components > 0 and num_codes > 0 and num_codes % _CODES_AT_ONCE == 0
        if not is_divisible or self.inputs.min() < -1 or self.inputs.max() >= num_components:
            return False
        if not all(np.isfinite(array).all() for array in arrays) or self.losses.min() < 0:
            return False
        if 2 * self.num_fine > num_codes:
            return False
        firsts = self.inputs[: num_codes - self.num_fine]
        used = firsts[firsts >= 0]
        refined = self.inputs[: self.num_fine]
        return len(np.unique(used)) == len(used) and np.array_equal(self.inputs[len(firsts) :], refined)

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
        projected = queries @ self._components.T
        squares = projected * projected
        losses = self.arrays.losses
        beside = np.maximum(0, (queries * queries).sum(axis=1) - squares.sum(axis=1))
        inputs = self._select(projected)
        # FAISS rounds what each value adds to a score, to a 255th of the widest range of a code.
        ranges = (np.abs(inputs) * self._ranges).reshape(len(queries), -1, SUBSPACE).sum(axis=2)
        rounded = self.num_codes / 12 * np.square(ranges.max(axis=1) / 255)
        return CodedQueries(inputs, np.sqrt(squares @ losses[:-1] + beside * losses[-1] + rounded))

    def inputs_of(self, differences: Embeddings) -> Embeddings:
        """Return what the codes of differences, (n, dimension), stand for exactly, (n, 2 · codes)."""
        inputs = self._select(differences @ self._components.T)
        if self._num_fine:
            num_coarse = self._num_fine * SUBSPACE
            coarse = np.ascontiguousarray(inputs[:, :num_coarse])
            inputs[:, -num_coarse:] -= _quantise(self._values[: self._num_fine], coarse)
        return inputs

    def decode(self, differences: Embeddings) -> Embeddings:
        """Return what the codes of differences, (n, dimension), give back."""
        decoded: Embeddings = _quantise(self._values, self.inputs_of(differences)) * self._is_input
        return decoded @ self._components[self._inputs]

    def fill(self, quantiser: Any) -> None:
        """Give a product quantiser of FAISS what its codes stand for."""
        faiss.copy_array_to_vector(self._values.ravel(), quantiser.centroids)

    def _select(self, projected: Embeddings) -> Embeddings:
        return projected.take(self._inputs, axis=1) * self._is_input


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
    components, importance, weights = directions.T[order], importance[order], weights[order]
    for dimensions_of_code in _DIMENSIONS_OF_CODE:
        num_codes = -(-dimension // (dimensions_of_code * _CODES_AT_ONCE)) * _CODES_AT_ONCE
        codebook, losses = _train(components, differences, _choose_kinds(weights, num_codes), num_codes)
        if importance @ losses <= _MAX_LOSS**2 * weights.sum():
            break
    return codebook


class _Kinds(NamedTuple):
    """How many components have at least two codes, one, and half a one."""

    fine: int
    single: int
    coded: int

    @property
    def num_codes(self) -> int:
        return self.fine + self.single + -(-(self.coded - self.single) // SUBSPACE)


def _choose_kinds(weights: NDArray[np.floating], num_codes: int) -> _Kinds:
    """Return the kinds that lose least, of components with these weights, descending."""
    kinds = _Kinds(0, 0, 0)
    for least in weights[::-1]:  # of a component that has half a code
        bounds = -least * np.array([_FINE_FROM, _SINGLE_FROM, 1.0])
        found = _Kinds(*np.searchsorted(-weights, bounds, side="right").tolist())
        if found.num_codes <= num_codes:
            kinds = found
            break
    unused = num_codes - kinds.num_codes
    coded = min(len(weights), kinds.coded + SUBSPACE * unused)
    unused = num_codes - _Kinds(kinds.fine, kinds.single, coded).num_codes
    return _Kinds(kinds.fine, min(coded, kinds.single + SUBSPACE * unused), coded)


def _train(
    components: NDArray[np.floating], differences: Embeddings, kinds: _Kinds, num_codes: int
) -> tuple[Codebook, NDArray[np.float32]]:
    """Train so many codes on differences, (n, dimension), for the first of all their components.

    Return the mean square that is lost of each component, too, (dimension,).
    """
    inputs = np.full((num_codes, SUBSPACE), -1, np.int16)
    inputs[: kinds.single, 0] = np.arange(kinds.single)
    inputs[kinds.single :].reshape(-1)[: kinds.coded - kinds.single] = np.arange(kinds.single, kinds.coded)
    num_first = num_codes - kinds.fine
    inputs[num_first:] = inputs[: kinds.fine]
    num_left_out = max(0, len(components) - kinds.coded - _LEAST_VARYING)
    is_left_out = np.zeros(len(components), np.bool_)
    is_left_out[kinds.coded : kinds.coded + num_left_out] = True
    kept = components[~is_left_out].astype(np.float16)
    values = np.zeros((num_codes, 2**BITS, SUBSPACE), np.float16)
    arrays = CodebookArrays(kept, inputs, values, np.zeros(len(kept) + 1, np.float32))
    values[:num_first] = _train_values(Codebook(arrays).inputs_of(differences)[:, : num_first * SUBSPACE])
    if kinds.fine:
        values[num_first:] = _train_values(Codebook(arrays).inputs_of(differences)[:, num_first * SUBSPACE :])
    lost = differences - Codebook(arrays).decode(differences)
    losses = np.square(lost @ components.T.astype(np.float32)).mean(axis=0)
    arrays.losses[:-1] = losses[~is_left_out]
    arrays.losses[-1] = losses[is_left_out].mean() if num_left_out else 0
    return Codebook(arrays), losses


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
