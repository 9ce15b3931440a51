"""Large segments are searched in part: fp16 embeddings in inverted lists around centroids.

Each embedding lies in the list of its nearest centroid, and a query scans the lists of the
centroids nearest to it (the inverted file of Jégou, Douze and Schmid, "Product quantization
for nearest neighbor search", 2011, here without a quantisation).

Compared with an HNSW graph of the same embeddings, the lists have four advantages. They were
faster at equal recall in segments of 25,000 and of 100,000. They find what lies near two clusters
at once; the walk through a graph stays in one. They took a tenth of the time to build. With a
filter, a search of lists scans what passes; a walk through a graph also visits what does not.
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
"""Smaller segments have no lists: a scan takes 0.2 ms at most (512 dimensions, one core), and they
are soon merged."""

_LISTS_PER_ROOT = 4  # lists = 4·√nodes, the lower end of FAISS's guideline "4·√n to 16·√n"
_TRAINING_NODES_OF_LIST = 32
_TRAINING_ROUNDS = 4  # more rounds changed recall by less than 0.003
_SEED = 1234
_BLOCK = 8192

_MIN_LISTS_PROBED = 16  # recall@10 in clustered data: 0.995 or more; for sums of two embeddings 0.98
_NODES_MET_PER_K = 8
_MAX_THOROUGHNESS = 4.0  # recall@10 for filters opposed to the query: 0.995 or more; with 2.0, 0.975
_FILE_MARK = b"IwSq"  # FAISS's name for an inverted file over a scalar quantizer


def write_lists(path: Path, embeddings: NDArray[np.float16]) -> None:
    """Train the centroids, sort the embeddings into lists and write them.

    A node of 512 dimensions takes 0.06 ms of one core in a segment of 25,000, and 0.09 ms in one
    of 200,000.
    """
    centroids = build_flat(embeddings.shape[1])
    centroids.add(_train(embeddings))
    index = build_lists(centroids)
    for first in range(0, len(embeddings), _BLOCK):
        index.add(embeddings[first : first + _BLOCK].astype(np.float32))
    write_index(path, index)


def build_lists(centroids: Any) -> Any:
    """Return a FAISS index with empty lists. `centroids` are a FAISS index themselves."""
    index = faiss.IndexIVFScalarQuantizer(
        centroids,
        centroids.d,
        centroids.ntotal,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # store the embeddings themselves, not their differences from the centroids
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
    """Vectors in lists; a search scans the lists nearest to the query. Immutable and thread-safe.

    FAISS's C++ methods are called without their Python wrappers, for two reasons. The wrapper for
    assigned lists takes no parameters, and every wrapper costs microseconds at every query.
    """

    def __init__(self, index: Any, centroids: Any, list_of_node: NDArray[np.int64] | None = None) -> None:
        """`index` is FAISS's, with nodes numbered from 0; `centroids` are its quantizer or an equal one.

        `list_of_node`, (nodes,), need not be read from the lists if it is known already.
        """
        self._index = index
        self.centroids = centroids
        self._list_of_node = list_of_node
        self._lists = faiss.downcast_InvertedLists(index.invlists)
        self._lists.prefetch_nthread = 0  # otherwise FAISS starts 32 threads for each search
        self.num_nodes = int(index.ntotal)
        self._num_lists = int(index.nlist)
        self._list_length = max(1, self.num_nodes // self._num_lists)  # the mean
        self._parameters: dict[int, Any] = {}

    def search(self, queries: Queries, k: int, selection: NodeSelection | None) -> Found:
        """Return the k best nodes of each query in the probed lists; −1 only if fewer than k are eligible."""
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
            num_probed = min(4 * num_probed, self._num_lists)  # the nearest lists held too few nodes

    def _search_among(self, queries: Queries, k: int, selection: NodeSelection) -> Found:
        """Probe the nearest lists until each query meets enough selected nodes.

        A node that is not selected costs only the test of a bit. If few nodes are selected, all of
        them are scanned.
        """
        assert selection.num_in_list is not None
        nearest = self._choose_lists(queries, k, selection.num_in_list)
        selector = faiss.IDSelectorBitmap(selection.bitmap)
        parameters = faiss.SearchParametersIVF(nprobe=nearest[1].shape[1], sel=selector)
        return self._scan_lists(queries, k, nearest, parameters)

    def _choose_lists(self, queries: Queries, k: int, num_in_list: NDArray[np.int64]) -> Found:
        """Return the scores and numbers of the lists to probe; `num_in_list` counts selected nodes."""
        num_selected = int(num_in_list.sum())
        num_wanted = self._num_wanted(queries, k, num_selected / self.num_nodes)
        num_ranked = self._num_lists * 2 * num_wanted // max(1, num_selected)  # twice the mean need
        while True:
            num_ranked = min(max(num_ranked, _MIN_LISTS_PROBED), self._num_lists)
            scores, lists = queries.nearest(self.centroids, num_ranked)
            num_met = np.cumsum(num_in_list[lists], axis=1)
            if num_ranked == self._num_lists or num_met[:, -1].min() >= num_wanted:
                break
            num_ranked = self._num_lists  # the selected nodes lie far from the query
        is_probed = num_met - num_in_list[lists] < num_wanted
        num_probed = int(is_probed.sum(axis=1).max())
        probed = np.where(is_probed, lists, -1)[:, :num_probed]
        return np.ascontiguousarray(scores[:, :num_probed]), np.ascontiguousarray(probed)

    def _num_wanted(self, queries: Queries, k: int, share: float) -> int:
        """Return how many selected nodes a query should meet: more if few nodes pass the filter.

        A selective filter is often correlated with the query, and then the nearest lists may hold
        nothing of what passes.
        """
        return int(self._num_met(queries, k) * min(_MAX_THOROUGHNESS, 1 / max(share, 1e-9)))

    def _num_met(self, queries: Queries, k: int) -> int:
        """Return how many nodes a query without a filter should meet."""
        return max(_MIN_LISTS_PROBED * self._list_length, queries.depth or _NODES_MET_PER_K * k)

    def _parameters_of(self, num_probed: int) -> Any:
        """Return FAISS's parameters. They are kept, because building them takes microseconds."""
        known = self._parameters.get(num_probed)
        if known is None:
            known = self._parameters[num_probed] = faiss.SearchParametersIVF(nprobe=num_probed)
        return known

    def _scan_lists(self, queries: Queries, k: int, nearest: Found, parameters: Any) -> Found:
        """Scan lists: `nearest` are the scores and numbers of each query's, both (q, probes), −1 for none."""
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
        return np.searchsorted(starts, self._positions[nodes], side="right") - 1

    def embeddings_of(self, nodes: NDArray[np.int64]) -> Embeddings:
        embeddings = np.empty((len(nodes), self._index.d), np.float32)
        _, starts = self._nodes_by_list
        lists = self._lists_of(nodes)
        for row, list_number, position in zip(
            embeddings, lists.tolist(), self._positions[nodes] - starts[lists], strict=True
        ):
            self._index.reconstruct_from_offset(list_number, int(position), faiss.swig_ptr(row))
        return embeddings

    @cached_property
    def _nodes_by_list(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The nodes ordered by list, and where each list starts, with the end of the last. Read on demand."""
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
    def _positions(self) -> NDArray[np.int32]:
        """The position of each node in the order by list."""
        positions = np.empty(self.num_nodes, np.int32)
        positions[self._nodes_by_list[0]] = np.arange(self.num_nodes, dtype=np.int32)
        return positions


def _starts(lengths: ArrayLike) -> NDArray[np.int64]:
    """Return where each list starts, and the end of the last one."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
