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
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.flat_vectors import Found, NodeSelection, build_flat, use_one_thread, write_index

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
    num_nodes, dimension = embeddings.shape
    num_lists = min(num_nodes, int(_LISTS_PER_ROOT * np.sqrt(num_nodes)))
    centroids = build_flat(dimension)
    index = faiss.IndexIVFScalarQuantizer(
        centroids,
        dimension,
        num_lists,
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # the embeddings themselves, not what they differ by from their centroid
    )
    _train(index, embeddings)
    for first in range(0, num_nodes, _BLOCK):
        index.add(embeddings[first : first + _BLOCK].astype(np.float32))
    write_index(path, index)


def _train(index: Any, embeddings: NDArray[np.float16]) -> None:
    num_nodes = min(len(embeddings), _TRAINING_NODES_OF_LIST * index.nlist)
    chosen = np.random.default_rng(_SEED).choice(len(embeddings), num_nodes, replace=False)
    index.cp.niter = _TRAINING_ROUNDS
    index.cp.min_points_per_centroid = 1
    index.cp.spherical = True
    in_fp32 = faiss.IndexFlatIP(index.d)  # its matrix products train faster than scans of fp16
    index.clustering_index = in_fp32
    index.train(embeddings[np.sort(chosen)].astype(np.float32))
    index.clustering_index = None


def has_lists(path: Path) -> bool:
    """Whether a vector file holds inverted lists; `FileNotFoundError` if it was collected."""
    with path.open("rb") as file:
        return file.read(len(_FILE_MARK)) == _FILE_MARK


class InvertedLists:
    """The opened lists of one vector file; immutable and thread-safe.

    FAISS's C++ methods are called without their Python wrappers: one takes no parameters for
    assigned lists, and each takes microseconds of its own at every query.
    """

    def __init__(self, path: Path) -> None:
        """Map the file. FAISS raises RuntimeError if it cannot be read."""
        self.index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        self._lists = faiss.downcast_InvertedLists(self.index.invlists)
        self._lists.prefetch_nthread = 0  # FAISS would start 32 threads for each search
        self._num_lists = int(self.index.nlist)
        self._list_length = max(1, int(self.index.ntotal) // self._num_lists)  # in the mean
        self._parameters: dict[int, Any] = {}

    def search(self, queries: Embeddings, k: int) -> Found:
        """Return the k best nodes of each query, k ≤ all of them, that the probed lists hold."""
        use_one_thread()
        queries = np.ascontiguousarray(queries, np.float32)
        found = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        arrays = [faiss.swig_ptr(array) for array in found]
        num_probed = min(self._num_lists, max(_MIN_LISTS_PROBED, _NODES_MET_OF_K * k // self._list_length))
        while True:
            parameters = self._parameters_of(num_probed)
            self.index.search_c(len(queries), faiss.swig_ptr(queries), k, *arrays, parameters)
            if num_probed == self._num_lists or (found[1][:, -1] >= 0).all():
                return found
            num_probed = min(4 * num_probed, self._num_lists)  # the lists near a query were short

    def search_among(self, queries: Embeddings, k: int, selection: NodeSelection) -> Found:
        """Return the k best selected nodes of each query; −1 only where fewer are selected.

        So many lists are probed, the nearest first, that a query meets enough selected nodes: what
        is not selected costs the test of a bit. Where few are selected, all of them are scanned.
        """
        use_one_thread()
        assert selection.num_in_list is not None
        num_selected = int(selection.num_in_list.sum())
        num_wanted = self._num_wanted(k, num_selected / int(self.index.ntotal))
        num_ranked = self._num_lists * 2 * num_wanted // max(1, num_selected)  # twice the mean need
        while True:
            num_ranked = min(max(num_ranked, _MIN_LISTS_PROBED), self._num_lists)
            scores, lists = self.index.quantizer.search(queries, num_ranked)
            num_met = np.cumsum(selection.num_in_list[lists], axis=1)
            if num_ranked == self._num_lists or (num_met[:, -1] >= num_wanted).all():
                break
            num_ranked = self._num_lists  # the filter goes against the query
        is_probed = num_met - selection.num_in_list[lists] < num_wanted
        num_probed = int(is_probed.sum(axis=1).max())
        probed = np.where(is_probed, lists, -1)[:, :num_probed]
        return self._scan_lists(queries, k, probed, scores[:, :num_probed], selection)

    def _num_wanted(self, k: int, share: float) -> int:
        """The smaller the share, the less likely is a filter to be independent of the query."""
        num_met = max(_MIN_LISTS_PROBED * self._list_length, _NODES_MET_OF_K * k)
        return int(num_met * min(_MAX_THOROUGHNESS, 1 / max(share, 1e-9)))

    def _parameters_of(self, num_probed: int) -> Any:
        """Building them takes microseconds: once is enough."""
        known = self._parameters.get(num_probed)
        if known is None:
            known = self._parameters[num_probed] = faiss.SearchParametersIVF(nprobe=num_probed)
        return known

    def _scan_lists(
        self,
        queries: Embeddings,
        k: int,
        lists: NDArray[np.int64],
        list_scores: NDArray[np.float32],
        selection: NodeSelection,
    ) -> Found:
        """Scan each query's `lists`, (q, probes), −1 for none."""
        queries, lists = np.ascontiguousarray(queries, np.float32), np.ascontiguousarray(lists)
        list_scores = np.ascontiguousarray(list_scores)
        selector = faiss.IDSelectorBitmap(selection.bitmap)
        parameters = faiss.SearchParametersIVF(nprobe=lists.shape[1], sel=selector)
        found = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
        arrays = (faiss.swig_ptr(array) for array in (lists, list_scores, *found))
        self.index.search_preassigned_c(
            len(queries), faiss.swig_ptr(queries), k, *arrays, False, params=parameters
        )
        return found

    def select(self, bitmap: NDArray[np.uint8]) -> NodeSelection:
        is_selected = np.unpackbits(bitmap, count=len(self._places[0]), bitorder="little").view(np.bool_)
        counts = np.bincount(self._places[0][is_selected], minlength=self._num_lists)
        return NodeSelection(bitmap, counts)

    def embeddings_of(self, nodes: NDArray[np.int64]) -> Embeddings:
        """Return fp32 embeddings (nodes, dimension)."""
        embeddings = np.empty((len(nodes), self.index.d), np.float32)
        lists, positions = self._places
        for place, node in enumerate(nodes):
            row = faiss.swig_ptr(embeddings[place])
            self.index.reconstruct_from_offset(int(lists[node]), int(positions[node]), row)
        return embeddings

    @cached_property
    def _places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The list of each node and its position there; read when first asked for."""
        num_nodes = int(self.index.ntotal)
        lists, positions = np.empty(num_nodes, np.int32), np.empty(num_nodes, np.int32)
        for number in range(self._num_lists):
            length = self._lists.list_size(number)
            nodes = faiss.rev_swig_ptr(self._lists.get_ids(number), length) if length else []
            lists[nodes], positions[nodes] = number, np.arange(length)
        return lists, positions
