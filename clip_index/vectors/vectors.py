"""What every kind of vectors offers to a search, and the steps that all kinds share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.storage.pack import ByteSink
from clip_index.vectors.queries import Found, Queries, Reach
from clip_index.vectors.scattered_codes import ScatteredCodes

VectorPart: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float16]]
"""Some nodes, (n,), and their embeddings, (n, dimension), where they lie in memory."""


class NodeSelection:
    """The nodes that may be found: a bitmap of all, least significant bit first. Thread-safe.

    What only some searches need is made when it is first asked for.
    """

    num_in_list: NDArray[np.int64] | None = None
    """How many selected nodes each inverted list has, (lists,); None if there are no lists."""

    def __init__(self, bitmap: NDArray[np.uint8], num_nodes: int) -> None:
        """`num_nodes` are selected."""
        self.bitmap = bitmap
        self.num_nodes = num_nodes

    @property
    def nodes(self) -> NDArray[np.int64]:
        """The selected nodes, ascending."""
        return np.flatnonzero(np.unpackbits(self.bitmap, bitorder="little").view(np.bool_))

    @property
    def nbytes(self) -> int:
        """The bytes with everything that can be asked for."""
        return self.bitmap.nbytes + 2 * self.num_nodes * np.dtype(np.int64).itemsize


class Vectors(Protocol):
    """The embeddings of nodes 0 … `num_nodes` − 1, ready to be searched. Immutable and thread-safe."""

    num_nodes: int
    has_rest: bool
    """Whether some nodes may be out of a near search's reach."""

    codes: ScatteredCodes | None
    """Scores nodes by their codes as a search does; None if a search takes further steps."""

    def count_near(self, queries: Queries, selection: NodeSelection | None) -> int:
        """Return how many nodes a near search looks at, for the query with the most."""
        ...

    def search(
        self, queries: Queries, k: int, selection: NodeSelection | None, reach: Reach = Reach.NEAR
    ) -> Found:
        """Return the k best nodes of each query among the selected ones within reach; k ≤ `num_nodes`.

        Without a selection every node may be found. Scores are cosines, from −1 to 1.
        """
        ...

    def are_near(
        self, queries: Queries, query: int, nodes: NDArray[np.int64], selection: NodeSelection | None
    ) -> NDArray[np.bool_]:
        """Return which of some nodes, (n,), a search of `Reach.NEAR` looks at for one of the queries."""
        ...

    def are_few(self, queries: Queries, num_nodes: int) -> bool:
        """Whether a scan of so many selected nodes alone, by their codes, costs less than a search."""
        ...

    def addresses_of(self, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return where the codes of some nodes, (n,), lie in memory."""
        ...

    def select(self, is_node: NDArray[np.bool_]) -> NodeSelection:
        """Prepare a mask of the nodes, (nodes,), for searches."""
        ...

    def deselect(self, selection: NodeSelection, nodes: NDArray[np.int64]) -> NodeSelection:
        """Return the selection without some of its nodes, (n,), each named once."""
        ...

    def parts(self) -> Iterator[VectorPart]:
        """Yield all nodes with their stored embeddings, part by part. They are not copied."""
        ...

    def embeddings_of(self, nodes: NDArray[np.int64]) -> Embeddings:
        """Return the fp32 embeddings (nodes, dimension) that scores are computed from."""
        ...


def pack_bits(is_node: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return a mask as a bitmap, least significant bit first."""
    return np.packbits(is_node, bitorder="little")


def without_bits(bitmap: NDArray[np.uint8], nodes: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return a copy in which the bits of these nodes are 0."""
    copy: NDArray[np.uint8] = bitmap.copy()
    np.bitwise_and.at(copy, nodes >> 3, ~(np.uint8(1) << (nodes & 7).astype(np.uint8)))
    return copy


def write_index(file: ByteSink, index: Any) -> None:
    """Write a FAISS index; `OSError` if the disk is full or fails.

    FAISS's own file writer is not used. It raises RuntimeError instead; and if its last buffer
    cannot be written, at closing, it only prints a line and leaves a truncated file.
    """
    faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def use_one_thread() -> None:
    """Make FAISS search in the calling thread only. FAISS keeps this setting for each thread.

    Requests run in parallel already. A team of OpenMP threads for each query gains nothing on
    an idle machine, and on a busy one queries wait for each other (60 ms instead of 2 ms).
    """
    faiss.omp_set_num_threads(1)


def clip_scores(found: Found) -> Found:
    """Keep scores within −1 and 1 in place: an embedding's fp16 numbers make it a little longer than 1."""
    scores = found[0]
    is_one_inside = len(scores) == 1 and scores.item(0) <= 1 and scores.item(-1) >= -1
    if not is_one_inside:  # of several queries clipping all costs less than looking at each
        np.clip(scores, -1, 1, out=scores)
    return found
