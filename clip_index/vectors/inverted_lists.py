"""Big segments are searched in part: fp16 embeddings in inverted lists around centroids.

Each embedding lies in the list of its nearest centroid, and a query scans the lists of the
centroids nearest to it (the inverted file of Jégou, Douze and Schmid, "Product quantization
for nearest neighbor search", 2011, here without a quantisation). Against an HNSW graph of the
same embeddings this was faster at equal recall in segments of 25,000 and of 100,000, found
what lies near two clusters at once, where a graph's walk stays in one, took a tenth of the
time to build, and scans what a filter leaves without walking through what it does not.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import ArrayLike, NDArray

from clip_index.content import Embeddings
from clip_index.vectors.flat_vectors import build_flat
from clip_index.vectors.queries import Found, Queries
from clip_index.vectors.vectors import NodeSelection, pack_bits, use_one_thread, without_bits, write_index

MIN_NODES = 4_000
"""Below, a scan takes 0.2 ms at most (512 dimensions, one core), and the segment is soon merged."""

_LISTS_PER_ROOT = 4  # lists = 4·√nodes, the least of FAISS's guideline "4·√n to 16·√n"
_TRAINING_NODES_OF_LIST = 32
_TRAINING_ROUNDS = 4  # more moved recall by less than 0.003
_SEED = 1234
_BLOCK = 8192

_MIN_LISTS_PROBED = 16  # in clustered data recall@10 of 0.995 and more, 0.98 for sums of two
_NODES_MET_OF_K = 8
_MAX_THOROUGHNESS = 4.0  # filters against the query kept recall@10 ≥ 0.995; half of it gave 0.975
_FILE_MARK = b"IwSq"  # FAISS's name for an inverted file over a scalar quantizer


def write_lists(path: Path, embeddings: NDArray[np.float16]) -> None:
    """Train the centroids, sort the embeddings into lists and write them.

    Takes 0.06 ms of one core for a node of 512 dimensions in a segment of 25,000, and 0.09 ms
    in one of 200,000.
    """
    centroids = build_flat(embeddings.shape[1])
    centroids.add(_train(embeddings))
    index = build_lists(centroids)
    for first in range(0, len(embeddings), _BLOCK):
        index.add(embeddings[first : first + _BLOCK].astype(np.float32))
    write_index(path, index)


def build_lists(centroids: Any) -> Any:
    """Return a FAISS index with empty lists around centroids, which are a FAISS index themselves."""
    index = faiss.IndexIVFScalarQuantizer(
        centroids,
        centroids.d,
        centroids.ntotal,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # the embeddings themselves, not what they differ by from their centroid
    )
    index.is_trained = True
    return index


def add_listed(index: Any, embeddings: NDArray[np.float16], lists: NDArray[np.int64]) -> None:
    """Add embeddings to an index of `build_lists`, each to the list that it is assigned to."""
    nodes = embeddings.astype(np.float32)
    index.add_core(len(nodes), faiss.swig_ptr(nodes), None, faiss.swig_ptr(lists))


def _train(embeddings: NDArray[np.float16]) -> Embeddings:
    """Return unit centroids, (lists, dimension)."""
    num_lists = min(len(embeddings), int(_LISTS_PER_ROOT * np.sqrt(len(embeddings))))
    num_nodes = min(len(embeddings), _TRAINING_NODES_OF_LIST * num_lists)
    chosen = np.random.default_rng(_SEED).choice(len(embeddings), num_nodes, replace=False)
    clusters = faiss.Kmeans(
        embeddings.shape[1],
        num_lists,
        niter=_TRAINING_ROUNDS,
        spherical=True,
        min_points_per_centroid=1,
        seed=_SEED,
    )
    clusters.train(embeddings[np.sort(chosen)].astype(np.float32))
    centroids: Embeddings = clusters.centroids
    return centroids


def has_lists(path: Path) -> bool:
    """Whether a vector file holds inverted lists; `FileNotFoundError` if it was collected."""
    with path.open("rb") as file:
        return file.read(len(_FILE_MARK)) == _FILE_MARK


class InvertedLists:
    """Vectors of which a search scans the nearest lists. Immutable and thread-safe.

    FAISS's C++ methods are called without their Python wrappers: one takes no parameters for
    assigned lists, and each takes microseconds of its own at every query.
    """

    def __init__(self, index: Any, centroids: Any, list_of_node: NDArray[np.int64] | None = None) -> None:
        """`index` is FAISS's, its nodes numbered from 0; `centroids` are its quantizer, or equal to it.

        `list_of_node` saves to look for them one list after the other, where it is known.
        """
        self._index = index
        self.centroids = centroids
        self._list_of_node = list_of_node
        self._lists = faiss.downcast_InvertedLists(index.invlists)
        self._lists.prefetch_nthread = 0  # FAISS would start 32 threads for each search
        self.num_nodes = int(index.ntotal)
        self._num_lists = int(index.nlist)
        self._list_length = max(1, self.num_nodes // self._num_lists)  # in the mean
        self._parameters: dict[int, Any] = {}

    def search(self, queries: Queries, k: int, selection: NodeSelection | None) -> Found:
        """Return the k best nodes of each query in the probed lists; −1 only where fewer may be found."""
        use_one_thread()
        if selection is None:
            return self._search_all(queries, k)
        return self._search_among(queries, k, selection)

    def _search_all(self, queries: Queries, k: int) -> Found:
        num_probed = min(self._num_lists, -(-self._num_met(queries, k) // self._list_length))
        while True:
            nearest = queries.nearest(self.centroids, num_probed)
            found = self._scan_lists(queries, k, nearest, self._parameters_of(num_probed))
            if num_probed == self._num_lists or queries.depth or found[1][:, -1].min() >= 0:
                return found
            num_probed = min(4 * num_probed, self._num_lists)  # the lists near a query were short

    def _search_among(self, queries: Queries, k: int, selection: NodeSelection) -> Found:
        """Probe so many lists, the nearest first, that a query meets enough selected nodes.

        What is not selected costs the test of a bit. Where few are selected, all of them are scanned.
        """
        assert selection.num_in_list is not None
        num_selected = int(selection.num_in_list.sum())
        num_wanted = self._num_wanted(queries, k, num_selected / self.num_nodes)
        num_ranked = self._num_lists * 2 * num_wanted // max(1, num_selected)  # twice the mean need
        while True:
            num_ranked = min(max(num_ranked, _MIN_LISTS_PROBED), self._num_lists)
            scores, lists = queries.nearest(self.centroids, num_ranked)
            num_met = np.cumsum(selection.num_in_list[lists], axis=1)
            if num_ranked == self._num_lists or num_met[:, -1].min() >= num_wanted:
                break
            num_ranked = self._num_lists  # the filter goes against the query
        is_probed = num_met - selection.num_in_list[lists] < num_wanted
        num_probed = int(is_probed.sum(axis=1).max())
        probed = np.where(is_probed, lists, -1)[:, :num_probed]
        nearest = np.ascontiguousarray(scores[:, :num_probed]), np.ascontiguousarray(probed)
        selector = faiss.IDSelectorBitmap(selection.bitmap)
        parameters = faiss.SearchParametersIVF(nprobe=num_probed, sel=selector)
        return self._scan_lists(queries, k, nearest, parameters)

    def _num_wanted(self, queries: Queries, k: int, share: float) -> int:
        """The smaller the share, the less likely is a filter to be independent of the query."""
        return int(self._num_met(queries, k) * min(_MAX_THOROUGHNESS, 1 / max(share, 1e-9)))

    def _num_met(self, queries: Queries, k: int) -> int:
        """How many nodes a query should meet."""
        return max(_MIN_LISTS_PROBED * self._list_length, queries.depth or _NODES_MET_OF_K * k)

    def _parameters_of(self, num_probed: int) -> Any:
        """Building them takes microseconds: once is enough."""
        known = self._parameters.get(num_probed)
        if known is None:
            known = self._parameters[num_probed] = faiss.SearchParametersIVF(nprobe=num_probed)
        return known

    def _scan_lists(self, queries: Queries, k: int, nearest: Found, parameters: Any) -> Found:
        """Scan the lists of each query: their scores and numbers, both (q, probes), −1 for none."""
        found = queries.empty(k)
        scores_and_lists = (faiss.swig_ptr(nearest[1]), faiss.swig_ptr(nearest[0]))
        into = (faiss.swig_ptr(found[0]), faiss.swig_ptr(found[1]))
        self._index.search_preassigned_c(
            len(queries), queries.pointer, k, *scores_and_lists, *into, False, parameters
        )
        return found

    def assign(self, embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
        """Return the list whose centroid is nearest to each embedding, (n,)."""
        use_one_thread()
        lists: NDArray[np.int64] = self.centroids.assign(embeddings.astype(np.float32), 1)[:, 0]
        return np.ascontiguousarray(lists)

    def select(self, is_node: NDArray[np.bool_]) -> NodeSelection:
        nodes, starts = self._nodes_by_list
        num_in_list = np.zeros(self._num_lists, np.int64)
        has_nodes = self._has_nodes
        counts = is_node.take(nodes).view(np.int8)
        num_in_list[has_nodes] = np.add.reduceat(counts, starts[:-1][has_nodes], dtype=np.int64)
        return NodeSelection(pack_bits(is_node), num_in_list)

    def deselect(self, selection: NodeSelection, nodes: NDArray[np.int64]) -> NodeSelection:
        assert selection.num_in_list is not None
        num_gone = np.bincount(self._lists_of(nodes), minlength=self._num_lists)
        return NodeSelection(without_bits(selection.bitmap, nodes), selection.num_in_list - num_gone)

    def _lists_of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the list that each node lies in."""
        _, starts = self._nodes_by_list
        return np.searchsorted(starts, self._places[nodes], side="right") - 1

    def embeddings_of(self, nodes: NDArray[np.int64]) -> Embeddings:
        embeddings = np.empty((len(nodes), self._index.d), np.float32)
        _, starts = self._nodes_by_list
        lists = self._lists_of(nodes)
        for row, list_number, place in zip(
            embeddings, lists.tolist(), self._places[nodes] - starts[lists], strict=True
        ):
            self._index.reconstruct_from_offset(list_number, int(place), faiss.swig_ptr(row))
        return embeddings

    @cached_property
    def _nodes_by_list(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The nodes list after list, where each list starts, and the last one's end; read when asked for."""
        if self._list_of_node is not None:
            lengths = np.bincount(self._list_of_node, minlength=self._num_lists)
            return np.argsort(self._list_of_node, kind="stable"), _starts(lengths)
        nodes = np.empty(self.num_nodes, np.int64)
        starts = _starts([self._lists.list_size(number) for number in range(self._num_lists)])
        for number, length in enumerate(np.diff(starts).tolist()):
            if length:
                members = faiss.rev_swig_ptr(self._lists.get_ids(number), length)
                nodes[starts[number] : starts[number + 1]] = members
        return nodes, starts

    @cached_property
    def _has_nodes(self) -> NDArray[np.bool_]:
        return np.diff(self._nodes_by_list[1]) > 0

    @cached_property
    def _places(self) -> NDArray[np.int32]:
        """Where each node stands among the nodes list after list."""
        places = np.empty(self.num_nodes, np.int32)
        places[self._nodes_by_list[0]] = np.arange(self.num_nodes, dtype=np.int32)
        return places


def _starts(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return where each list starts, and the last one's end."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
