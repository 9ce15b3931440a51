"""Small segments are scanned: one flat FAISS index of fp16 embeddings, with exact answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings, Modality
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.pack import ByteSink
from clip_index.vectors.queries import Found, Queries, Reach
from clip_index.vectors.scattered_codes import SECONDS_OF_ASKING, SECONDS_OF_COPIED_NODE, ScatteredCodes
from clip_index.vectors.vectors import (
    NodeSelection,
    VectorPart,
    clip_scores,
    pack_bits,
    use_one_thread,
    without_bits,
    write_index,
)

_SECONDS_OF_CALL = 50e-6  # of a search of one file, in Python and FAISS, beside the scan


class FlatVectors:
    """Vectors that are scanned, one after another, with exact answers."""

    has_rest = False

    def __init__(self, index: Any) -> None:
        self._index = index
        self.num_nodes = int(index.ntotal)
        self.codes: ScatteredCodes | None = ScatteredCodes(index)
        self._code_size = int(index.code_size)

    def search(
        self, queries: Queries, k: int, selection: NodeSelection | None, reach: Reach = Reach.NEAR
    ) -> Found:
        if reach is Reach.REST:  # everything is near
            return queries.nothing(k)
        found = queries.empty(k)
        use_one_thread()
        into = (faiss.swig_ptr(found[0]), faiss.swig_ptr(found[1]))
        selector = faiss.IDSelectorBitmap(selection.bitmap) if selection else None
        parameters = faiss.SearchParameters(sel=selector) if selector else None
        self._index.search_c(len(queries), queries.pointer, k, *into, parameters)
        return clip_scores(found)

    def count_near(self, queries: Queries, selection: NodeSelection | None) -> int:
        return self.num_nodes

    def are_near(
        self, queries: Queries, query: int, nodes: NDArray[np.int64], selection: NodeSelection | None
    ) -> NDArray[np.bool_]:
        return np.ones(len(nodes), np.bool_)

    def are_few(self, queries: Queries, num_nodes: int) -> bool:
        """Scanning everything costs a call, and asks each node whether it is selected."""
        return num_nodes * SECONDS_OF_COPIED_NODE <= _SECONDS_OF_CALL + self.num_nodes * SECONDS_OF_ASKING

    def addresses_of(self, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        first = int(self._index.codes.data()) if self.num_nodes else 0
        return first + nodes.astype(np.int64) * self._code_size

    def select(self, is_node: NDArray[np.bool_]) -> NodeSelection:
        return NodeSelection(pack_bits(is_node), int(np.count_nonzero(is_node)))

    def deselect(self, selection: NodeSelection, nodes: NDArray[np.int64]) -> NodeSelection:
        return NodeSelection(without_bits(selection.bitmap, nodes), selection.num_nodes - len(nodes))

    def parts(self) -> Iterator[VectorPart]:
        if self.num_nodes:
            codes = faiss.rev_swig_ptr(self._index.codes.data(), self.num_nodes * self._index.code_size)
            yield np.arange(self.num_nodes), codes.view(np.float16).reshape(self.num_nodes, -1)

    def embeddings_of(self, nodes: NDArray[np.int64]) -> Embeddings:
        return np.asarray(self._index.reconstruct_batch(nodes), np.float32)


def build_flat(dimension: int) -> Any:
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def write_flat(
    file: ByteSink,
    embeddings: NDArray[np.float16],
    _others: NDArray[np.float16] | None = None,
    _modality: Modality = "image",
    _known: object = None,
    /,
) -> None:
    """Write an exact index: fp16 rows, inner product. A scan needs no other embeddings to measure it."""
    index = build_flat(embeddings.shape[1])
    add_flat(index, embeddings)
    write_index(file, index)


def open_flat(part: MappedPart) -> Any:
    """Open what `write_flat` wrote where it lies in memory; `RuntimeError` if FAISS cannot read it.

    The index points into the mapped bytes, so the caller keeps the part as long as the index.
    """
    data = np.frombuffer(part.data, np.uint8)
    return faiss.read_index(faiss.ZeroCopyIOReader(faiss.swig_ptr(data), len(data)))


def add_flat(index: Any, embeddings: NDArray[np.float16]) -> None:
    """Add embeddings to an index of `build_flat`: its codes are fp16 numbers as they are."""
    index.add_sa_codes(np.ascontiguousarray(embeddings).view(np.uint8))
