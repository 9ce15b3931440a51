"""The embeddings of one modality in one segment.

A vector file holds one fp16 node per *distinct* embedding: identical pictures are
normal on platforms, and they are stored and scored once. A second file, `nodes.npy`,
maps nodes to rows (`NodeRows`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import faiss
import numpy as np
import xxhash
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.errors import DamagedFile
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.pack import ByteSink
from clip_index.vectors import inverted_lists
from clip_index.vectors.calibration import TARGET_RECALL, UNCALIBRATED, Effort
from clip_index.vectors.centroid_set import CentroidFile, CentroidSet
from clip_index.vectors.flat_vectors import FlatVectors, open_flat, write_flat
from clip_index.vectors.inverted_lists import InvertedLists, has_lists, open_lists
from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.vectors import Vectors


@dataclass(frozen=True, slots=True)
class NodeMap:
    """Distinct fp16 embeddings of shape (nodes, dimension) and the (2, n) map node → row."""

    embeddings: NDArray[np.float16]
    node_rows: NDArray[np.uint32]


def build_node_map(embeddings: NDArray[np.float16], rows: NDArray[np.uint32]) -> NodeMap:
    """Collapse bit-equal embeddings: one node each, in order of first appearance."""
    contiguous = np.ascontiguousarray(embeddings)
    node_of_digest: dict[int, int] = {}
    nodes = np.fromiter(
        (
            node_of_digest.setdefault(xxhash.xxh3_128_intdigest(vector.data), len(node_of_digest))
            for vector in contiguous
        ),
        np.uint32,
        len(contiguous),
    )
    if len(node_of_digest) == len(contiguous):  # nearly always so in a commit
        return NodeMap(contiguous, np.stack([nodes, rows.astype(np.uint32)]))
    order = np.argsort(nodes, kind="stable")
    first = np.unique(nodes, return_index=True)[1]
    return NodeMap(contiguous[first], np.stack([nodes[order], rows.astype(np.uint32)[order]]))


@dataclass(frozen=True, slots=True)
class WrittenLists:
    """The effort that was measured for a file's lists, and the set they share; None if it is their own."""

    effort: Effort
    shared: CentroidFile | None = None


class VectorWriter(Protocol):
    """Writes the vector file of one modality."""

    def __call__(
        self,
        file: ByteSink,
        embeddings: NDArray[np.float16],
        others: NDArray[np.float16] | None,
        modality: Modality,
        /,
    ) -> WrittenLists | None:
        """Write distinct fp16 embeddings (nodes, dimension); `others` are those of the other modality.

        Returns None if the file has no lists. A shared set's own file is left to the caller.
        """
        ...


def write_fastest(
    file: ByteSink,
    embeddings: NDArray[np.float16],
    others: NDArray[np.float16] | None = None,
    _modality: Modality = "image",
    /,
    *,
    target_recall: float = TARGET_RECALL,
) -> WrittenLists | None:
    """Write distinct embeddings in the form that is fastest to search by itself; lists take their time."""
    if len(embeddings) >= inverted_lists.MIN_NODES:
        return WrittenLists(inverted_lists.write_own_lists(file, embeddings, others, target_recall))
    write_flat(file, embeddings)
    return None


class VectorFile:
    """One opened vector file with its node map; immutable and thread-safe."""

    def __init__(
        self,
        part: MappedPart,
        node_rows: NDArray[np.uint32],
        effort: Effort = UNCALIBRATED,
        shared: CentroidSet | None = None,
    ) -> None:
        """Open what is mapped; `FileNotFoundError` if its file was collected.

        It must have been verified: a truncated mapped file kills the process. `effort` is what was
        measured for its lists, and `shared` the set of centroids that they lie around.
        """
        self._part = part  # kept alive, because the index points into its bytes
        try:
            self._index = _open_index(part)
        except RuntimeError as error:  # every exception of FAISS is a RuntimeError
            part.path.stat()  # raises FileNotFoundError for a file that was collected, which is not damage
            raise DamagedFile(part.path, str(error).strip().splitlines()[-1]) from error
        self.num_nodes = int(self._index.ntotal)
        self.node_rows = NodeRows(node_rows, self.num_nodes)
        self.lists = self._open_lists(effort, shared) if isinstance(self._index, faiss.IndexIVF) else None
        self.vectors: Vectors = self.lists or FlatVectors(self._index)
        self._around: tuple[Any, NDArray[np.int64]] | None = None

    def _open_lists(self, effort: Effort, shared: CentroidSet | None) -> InvertedLists:
        centroids = self._index.quantizer if shared is None else shared.index
        if (centroids.ntotal, centroids.d) != (self._index.nlist, self._index.d):
            detail = f"{self._index.nlist} lists of {self._index.d} dimensions"
            raise DamagedFile(self._part.path, f"{detail} around {centroids.ntotal} of {centroids.d}")
        nodes_per_row = self.node_rows.nodes_per_row
        return InvertedLists(self._index, centroids, effort, nodes_per_row=nodes_per_row, shared=shared)

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @property
    def is_flat(self) -> bool:
        return self.lists is None

    def read_all(self) -> tuple[NDArray[np.float16], NDArray[np.uint32]]:
        """Return one fp16 embedding for each pair of the node map, and the pairs' rows."""
        return self.read_nodes()[self.node_rows.nodes], self.node_rows.rows

    def read_nodes(self) -> NDArray[np.float16]:
        """Return the embedding of each node, (nodes, dimension)."""
        return np.asarray(self._index.reconstruct_n(0, self.num_nodes), np.float16)

    def lists_around(self, guide: InvertedLists) -> NDArray[np.int64]:
        """Return the list of `guide` that each node would lie in, (nodes,); remembered for its centroids."""
        known = self._around
        if known is None or known[0] is not guide.centroids:
            known = self._around = (guide.centroids, guide.assign(self.read_nodes()))
        return known[1]


def _open_index(part: MappedPart) -> Any:
    if has_lists(part):
        return open_lists(part)
    return open_flat(part)
