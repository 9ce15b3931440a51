"""The embeddings of one modality in one segment.

A vector file holds one fp16 node per *distinct* embedding: identical pictures are
normal on platforms, and they are stored and scored once. A second file, `nodes.npy`,
maps nodes to rows (`NodeRows`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import faiss
import numpy as np
import xxhash
from numpy.typing import NDArray

from clip_index.content import Modality
from clip_index.errors import DamagedFile
from clip_index.storage.mapped_array import map_array
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.pack import ByteSink
from clip_index.vectors.calibration import TARGET_RECALL
from clip_index.vectors.centroid_set import CentroidFile, CentroidSet, KnownLists
from clip_index.vectors.flat_vectors import FlatVectors, open_flat, write_flat
from clip_index.vectors.lists import inverted_lists
from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.mapped_lists import has_lists, open_lists
from clip_index.vectors.lists.quantised_lists import QuantisedLists, is_quantised
from clip_index.vectors.lists.scan_codes import ScanCodes
from clip_index.vectors.near_lists.effort import UNCALIBRATED, Effort
from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.vectors import Vectors

_BLOCK = 65536


@dataclass(frozen=True, slots=True)
class NodeMap:
    """Distinct fp16 embeddings of shape (nodes, dimension) and the (2, n) map node → row."""

    embeddings: NDArray[np.float16]
    node_rows: NDArray[np.uint32]
    known: KnownLists | None = None


def build_node_map(
    embeddings: NDArray[np.float16], rows: NDArray[np.uint32], known: KnownLists | None = None
) -> NodeMap:
    """Collapse bit-equal embeddings: one node each, in order of first appearance.

    The array becomes the node map's. Of a large merge a second one might not fit into memory.
    """
    contiguous = np.ascontiguousarray(embeddings)
    nodes, first = _number_distinct(_digests(contiguous))
    if len(first) == len(contiguous):  # nearly always so in a commit
        return NodeMap(contiguous, np.stack([nodes, rows.astype(np.uint32)]), known)
    order = np.argsort(nodes, kind="stable")
    pairs = np.stack([nodes[order], rows.astype(np.uint32)[order]])
    known_of_nodes = None if known is None else replace(known, lists=known.lists[first])
    return NodeMap(_move_to_front(contiguous, first), pairs, known_of_nodes)


def _digests(embeddings: NDArray[np.float16]) -> NDArray[np.uint64]:
    """Return xxh3-128 of the bits of each embedding, (n, 2)."""
    digests = np.empty((len(embeddings), 2), np.uint64)
    for start in range(0, len(embeddings), _BLOCK):
        block = embeddings[start : start + _BLOCK]
        joined = b"".join(xxhash.xxh3_128_digest(vector.data) for vector in block)
        digests[start : start + _BLOCK] = np.frombuffer(joined, np.uint64).reshape(-1, 2)
    return digests


def _number_distinct(digests: NDArray[np.uint64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Number distinct digests in order of first appearance.

    Return the number of each, (n,), and the position at which each number appears first.
    """
    order = np.lexsort((digests[:, 1], digests[:, 0]))
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = (digests[order[1:]] != digests[order[:-1]]).any(axis=1)
    if is_new.all():
        return np.arange(len(order), dtype=np.uint32), np.arange(len(order))
    first = order[is_new]  # the sort is stable, so the first of equal digests comes first
    by_appearance = np.argsort(first)
    number_of_group = np.empty(len(first), np.uint32)
    number_of_group[by_appearance] = np.arange(len(first))
    numbers = np.empty(len(order), np.uint32)
    numbers[order] = number_of_group[np.cumsum(is_new) - 1]
    return numbers, first[by_appearance]


def _move_to_front(embeddings: NDArray[np.float16], kept: NDArray[np.int64]) -> NDArray[np.float16]:
    """Move the kept embeddings, whose positions ascend, to the front; return them."""
    for start in range(0, len(kept), _BLOCK):
        moved = kept[start : start + _BLOCK]
        embeddings[start : start + len(moved)] = embeddings[moved]
    return embeddings[: len(kept)]


@dataclass(frozen=True, slots=True)
class WrittenLists:
    """The effort that was measured for a file's lists, and the set they share; None if it is their own."""

    effort: Effort
    shared: CentroidFile | None = None
    is_quantised: bool = False
    """Whether the embeddings themselves are stored beside the lists, which hold codes of them."""
    write_codes: Callable[[ByteSink], None] | None = None
    """Writes codes beside the lists, from which a long scan takes candidates."""


class VectorWriter(Protocol):
    """Writes the vector file of one modality."""

    def __call__(
        self,
        file: ByteSink,
        embeddings: NDArray[np.float16],
        others: NDArray[np.float16] | None,
        modality: Modality,
        known: KnownLists | None = None,
        /,
    ) -> WrittenLists | None:
        """Write distinct fp16 embeddings (nodes, dimension); `others` are those of the other modality.

        `known` are lists that they lie in already.

        Returns None if the file has no lists. A shared set's own file is left to the caller.
        """
        ...


def write_fastest(
    file: ByteSink,
    embeddings: NDArray[np.float16],
    others: NDArray[np.float16] | None = None,
    _modality: Modality = "image",
    _known: KnownLists | None = None,
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
        exact: MappedPart | None = None,
        codes: MappedPart | None = None,
        listed: MappedPart | None = None,
    ) -> None:
        """Open what is mapped; `FileNotFoundError` if its file was collected.

        It must have been verified: a truncated mapped file kills the process. `effort` is what was
        measured for its lists, and `shared` the set of centroids that they lie around. Quantised lists
        have the embeddings themselves in `exact`. Other lists may have `codes` beside them. Flat embeddings
        may have beside them, in `listed`, the list around `shared` that each of them would lie in.
        """
        self._part = part  # kept alive, because the index points into its bytes
        try:
            self._index = _open_index(part)
        except RuntimeError as error:  # every exception of FAISS is a RuntimeError
            part.path.stat()  # raises FileNotFoundError for a file that was collected, which is not damage
            raise DamagedFile(part.path, str(error).strip().splitlines()[-1]) from error
        self.num_nodes = int(self._index.ntotal)
        self.node_rows = NodeRows(node_rows, self.num_nodes)
        self.lists = (
            self._open_lists(effort, shared, exact, codes)
            if isinstance(self._index, faiss.IndexIVF)
            else None
        )
        self.vectors: Vectors = self.lists or FlatVectors(self._index)
        self.shared = shared  # kept alive, because others look for it while somebody uses it
        self._around: tuple[Any, NDArray[np.int64]] | None = None
        if listed is not None and shared is not None:
            self._around = (shared.index, _map_listed(listed, self.num_nodes, shared))

    def _open_lists(
        self,
        effort: Effort,
        shared: CentroidSet | None,
        exact: MappedPart | None,
        codes: MappedPart | None,
    ) -> InvertedLists:
        centroids = self._index.quantizer if shared is None else shared.index
        if (centroids.ntotal, centroids.d) != (self._index.nlist, self._index.d):
            detail = f"{self._index.nlist} lists of {self._index.d} dimensions"
            raise DamagedFile(self._part.path, f"{detail} around {centroids.ntotal} of {centroids.d}")
        nodes_per_row = self.node_rows.nodes_per_row
        if not is_quantised(self._index):
            lists = InvertedLists(self._index, centroids, effort, nodes_per_row=nodes_per_row, shared=shared)
            if codes is not None and shared is not None and shared.codebook is not None:
                lists.scan_codes = ScanCodes(codes, lists.lengths, shared.codebook)
            return lists
        embeddings = self._map_exact(exact)
        return QuantisedLists(
            self._index, centroids, effort, embeddings, nodes_per_row=nodes_per_row, shared=shared
        )

    def _map_exact(self, exact: MappedPart | None) -> NDArray[np.float16]:
        """Map the embeddings beside quantised lists. Searches read some of them, far from each other."""
        if exact is None:
            raise DamagedFile(self._part.path, "quantised lists without their embeddings")
        exact.expect_random_reads()
        embeddings = map_array(exact)
        if embeddings.dtype != np.float16 or embeddings.shape != (self.num_nodes, self._index.d):
            raise DamagedFile(exact.path, f"embeddings of {embeddings.dtype} {embeddings.shape}")
        return embeddings

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @property
    def is_flat(self) -> bool:
        return self.lists is None

    def read_pairs(self, is_kept: NDArray[np.bool_], out: NDArray[np.float16]) -> None:
        """Write the embeddings of the kept pairs of the node map to `out`, (kept, dimension), in their order.

        They are copied from where they lie, because a merge has no memory for them twice.
        """
        nodes = self.node_rows.nodes[is_kept]
        if not len(nodes):
            return
        is_first = np.ones(len(nodes), np.bool_)
        is_first[1:] = nodes[1:] != nodes[:-1]
        position_of = np.full(self.num_nodes, -1)
        position_of[nodes[is_first]] = np.flatnonzero(is_first)
        for members, embeddings in self.vectors.parts():
            positions = position_of[members]
            are_kept = positions >= 0
            out[positions[are_kept]] = embeddings[are_kept]
        out[~is_first] = out[position_of[nodes[~is_first]]]

    def read_nodes(self) -> NDArray[np.float16]:
        """Return the embedding of each node, (nodes, dimension)."""
        embeddings = np.empty((self.num_nodes, self.dimension), np.float16)
        for nodes, part in self.vectors.parts():
            embeddings[nodes] = part
        return embeddings

    def lists_of_pairs(self, is_kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the list of each kept pair of the node map, (kept,); −1 where no list is known."""
        nodes = self.node_rows.nodes[is_kept].astype(np.int64)
        if self.lists is not None:
            return self.lists.lists_of(nodes)
        return np.full(len(nodes), -1) if self._around is None else self._around[1][nodes]

    def lists_around(self, guide: InvertedLists, merged: Sequence[VectorFile] = ()) -> NDArray[np.int64]:
        """Return the list of `guide` that each node would lie in, (nodes,); remembered for its centroids.

        Whoever has written the file may have stored them. If not, a merge may have made this file of the
        `merged` ones. What they remember is not looked for again.
        """
        known = self._around
        if known is None or known[0] is not guide.centroids:
            known = self._around = (guide.centroids, self._find_lists(guide, merged))
        return known[1]

    def _find_lists(self, guide: InvertedLists, merged: Sequence[VectorFile]) -> NDArray[np.int64]:
        nodes = self.read_nodes()
        lists = _remembered_lists(nodes, [file for file in merged if file._remembers(guide)])
        is_new = lists < 0
        if is_new.any():
            lists[is_new] = guide.assign(nodes[is_new])
        return lists

    def _remembers(self, guide: InvertedLists) -> bool:
        return self._around is not None and self._around[0] is guide.centroids


def _remembered_lists(nodes: NDArray[np.float16], files: Sequence[VectorFile]) -> NDArray[np.int64]:
    """Return the list of each node, (n,), that has the bits of a node of the files; −1 for the others.

    Half of a digest suffices: two nodes that share it would lie in one list, and each keep its score.
    """
    remembered = [(file.read_nodes(), file._around[1]) for file in files if file._around is not None]
    if not remembered:
        return np.full(len(nodes), -1)
    lists = np.concatenate([of_file for _, of_file in remembered])
    digests = np.concatenate([_digests(of_file)[:, 0] for of_file, _ in remembered])
    order, wanted = np.argsort(digests), _digests(nodes)[:, 0]
    at = order[np.searchsorted(digests, wanted, sorter=order).clip(max=len(order) - 1)]
    return np.where(digests[at] == wanted, lists[at], -1)


def _map_listed(part: MappedPart, num_nodes: int, shared: CentroidSet) -> NDArray[np.int64]:
    """Read the list of each node, (nodes,); `DamagedFile` if they are not lists of the set."""
    lists = map_array(part)
    if lists.dtype != np.uint32 or lists.shape != (num_nodes,):
        raise DamagedFile(part.path, f"an array of {lists.dtype} {lists.shape}, where lists are expected")
    if lists.max(initial=0) >= shared.num_lists:
        raise DamagedFile(part.path, f"list {lists.max()} of {shared.num_lists}")
    return lists.astype(np.int64)


def _open_index(part: MappedPart) -> Any:
    if has_lists(part):
        return open_lists(part)
    return open_flat(part)
