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

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.storage.mapped_part import MappedPart
from clip_index.storage.pack import ByteSink
from clip_index.vectors.calibration import (
    TARGET_RECALL,
    UNCALIBRATED,
    Effort,
    calibrate,
    may_train,
)
from clip_index.vectors.centroid_set import CentroidSet, num_lists_of, train_centroids
from clip_index.vectors.list_members import ListedSelection, ListMembers
from clip_index.vectors.list_writer import write_listed
from clip_index.vectors.listed_codes import ListedCodes
from clip_index.vectors.queries import Around, Found, NearLists, Queries, Reach
from clip_index.vectors.vectors import (
    NodeSelection,
    VectorPart,
    clip_scores,
    pack_bits,
    use_one_thread,
    without_bits,
)

MIN_NODES = 4_000
"""Smaller segments have no lists: a scan takes 0.2 ms at most (512 dimensions, one core), and they
are soon merged."""

_MAX_THOROUGHNESS = 4.0  # recall@10 for filters opposed to the query: 0.995 or more; with 2.0, 0.975
_FILTERED_BASE = 4  # times the least number of near lists; with 2, filters opposed to the query had 0.956

_WIDE = 0.5
_WIDE_MARGIN = 1.15
_MORE_LEFT_OUT = 1.1
_DEVIATIONS = 3
"""A wide selection keeps half of the nodes or more. If the near lists hold hardly more of the nodes that it
leaves out than chance would put there, it does not depend on the query, and few lists are scanned: recall@10
stayed 0.998 or more for filters that keep a half. Of filters that keep a fifth it fell to 0.98, because some
depend on what lies behind the near lists."""

# Measured for 512 dimensions in fp16 that no cache holds. Their ratios matter, not what they are.
_SECONDS_OF_RANKING = 0.2e-6  # a list, where many are ranked
_SECONDS_OF_LIST = 0.3e-6  # that is scanned
_SECONDS_OF_ASKING = 10e-9  # a node of such a list whether it is selected
_SECONDS_OF_NODE = 280e-9  # that is selected
_SECONDS_OF_COPIED_NODE = 450e-9

_fseek = ctypes.CDLL(None).fseek
_fseek.argtypes = (ctypes.c_void_p, ctypes.c_long, ctypes.c_int)
_FILE_MARK = b"IwSq"  # FAISS's name for an inverted file over a scalar quantizer


def write_own_lists(
    file: ByteSink,
    embeddings: NDArray[np.float16],
    others: NDArray[np.float16] | None = None,
    target_recall: float = TARGET_RECALL,
) -> Effort:
    """Write lists with centroids of their own, and measure the effort that they need.

    A node of 512 dimensions takes 0.06 ms of one core in a segment of 25,000, and 0.09 ms in one
    of 200,000. `others` are embeddings of the other modality.
    """
    training = embeddings[may_train(embeddings)]
    own = CentroidSet.of(train_centroids(training, num_lists_of(len(embeddings))))
    lists = write_lists(file, build_lists(own.index), embeddings, own)
    return calibrate(embeddings, own.centroids, lists, others=others, target_recall=target_recall)


def write_lists(
    file: ByteSink, index: Any, embeddings: NDArray[np.float16], around: CentroidSet
) -> NDArray[np.int64]:
    """Write embeddings in the lists of an empty index of `build_lists`; return the list of each, (n,)."""
    lists = around.assign(embeddings).lists
    write_listed(file, index, lists, lambda nodes: embeddings[nodes].view(np.uint8))
    return lists


def build_lists(centroids: Any, num_lists: int | None = None) -> Any:
    """Return a FAISS index with empty lists. `centroids` are a FAISS index themselves.

    If they are kept elsewhere, it is empty, and `num_lists` says how many there are.
    """
    index = faiss.IndexIVFScalarQuantizer(
        centroids,
        centroids.d,
        centroids.ntotal if num_lists is None else num_lists,
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


def has_lists(part: MappedPart) -> bool:
    """Whether a vector file holds inverted lists."""
    return bytes(part.data[: len(_FILE_MARK)]) == _FILE_MARK


def open_lists(part: MappedPart) -> Any:
    """Map the lists where they lie in their file; `RuntimeError` if FAISS cannot read them.

    FAISS maps lists only of a file that it has opened itself, from the place that it has read up to.
    """
    reader = faiss.FileIOReader(str(part.path))
    if _fseek(int(reader.f), part.offset, os.SEEK_SET):
        raise RuntimeError(f"no position {part.offset}")
    return faiss.read_index(reader, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)


class InvertedLists:
    """Vectors in lists; a search scans the lists nearest to the query. Immutable and thread-safe.

    FAISS's C++ methods are called without their Python wrappers, for two reasons. The wrapper for
    assigned lists takes no parameters, and every wrapper costs microseconds at every query.
    """

    has_rest = True

    def __init__(
        self,
        index: Any,
        centroids: Any,
        effort: Effort = UNCALIBRATED,
        list_of_node: NDArray[np.int64] | None = None,
        nodes_per_row: float = 1.0,
        shared: CentroidSet | None = None,
    ) -> None:
        """`index` is FAISS's, its nodes numbered from 0; its lists lie around `centroids`.

        These are the FAISS index of a `shared` set, or its own quantizer, or equal to that.
        `list_of_node`, (nodes,), need not be read from the lists if it is known already.
        """
        self.shared = shared  # kept alive, because others look for it while somebody uses it
        self._index = index
        self.centroids = centroids
        lists = faiss.downcast_InvertedLists(index.invlists)
        lists.prefetch_nthread = 0  # otherwise FAISS starts 32 threads for each search
        self.stored_lists = lists
        self.num_nodes = int(index.ntotal)
        self._members = ListMembers(lists, self.num_nodes, list_of_node)
        self._codes = ListedCodes(index)
        self.around = Around(centroids, self.num_nodes, effort, nodes_per_row)
        self._num_lists = int(index.nlist)
        self._list_length = self.num_nodes / self._num_lists  # in the mean
        self._parameters: dict[int, Any] = {}

    def search(
        self, queries: Queries, k: int, selection: NodeSelection | None, reach: Reach = Reach.NEAR
    ) -> Found:
        """Return the k best nodes of each query in the lists within reach; −1 for fewer."""
        use_one_thread()
        if reach is Reach.ALL:
            return self._scan_all(queries, k, selection)
        if selection is not None and self._is_few(queries, selection):
            return self._scan_few(queries, k, selection, reach)
        if selection is None and reach is Reach.NEAR:
            near = queries.near(self.around)
            return self._scan_lists(queries, k, near.pointers, self._parameters_of(near.lists.shape[1], None))
        scores, lists, num_near = self._rank_lists(queries, selection, ranks_all=reach is Reach.REST)
        ranks = np.arange(lists.shape[1])
        are_probed = (ranks < num_near[:, None]) == (reach is Reach.NEAR)
        num_probed = int(num_near.max()) if reach is Reach.NEAR else len(ranks)
        probed = np.sort(np.where(are_probed, lists, -1)[:, :num_probed], axis=1)  # as they lie in memory
        their_scores = np.ascontiguousarray(scores[:, :num_probed])
        pointers = (faiss.swig_ptr(probed), faiss.swig_ptr(their_scores))
        return self._scan_lists(queries, k, pointers, self._parameters_of(num_probed, selection))

    def count_near(self, queries: Queries, selection: NodeSelection | None) -> int:
        if selection is not None and self._is_few(queries, selection):
            return selection.num_nodes
        _, lists, num_near = self._rank_lists(queries, selection)
        lengths = self._members.lengths if selection is None else selection.num_in_list
        assert lengths is not None
        met = lengths[lists].cumsum(axis=1)
        return int(np.take_along_axis(met, num_near[:, None] - 1, axis=1).max())

    def are_near(
        self, queries: Queries, query: int, nodes: NDArray[np.int64], selection: NodeSelection | None
    ) -> NDArray[np.bool_]:
        if selection is not None and self._is_few(queries, selection):
            return np.ones(len(nodes), np.bool_)
        _, lists, num_near = self._rank_lists(queries, selection)
        are_near: NDArray[np.bool_] = np.isin(self._members.lists_of(nodes), lists[query, : num_near[query]])
        return are_near

    def _is_few(self, queries: Queries, selection: NodeSelection) -> bool:
        """Whether all selected nodes are scanned, because that costs no more than the near lists would.

        It depends on no query, so queries that are asked together are answered as they are alone.
        """
        near_seconds = self._seconds_of_near(queries, selection)
        return min(_seconds_of_copying(selection), self._seconds_of_all(selection)) <= near_seconds

    def _seconds_of_near(self, queries: Queries, selection: NodeSelection) -> float:
        """Estimate a scan of the near lists of a usual query."""
        share, least = self._share_of(selection), queries.least_near(self.around)
        num_usual = queries.usual_near(self.around)
        if share >= _WIDE:
            num_lists = _num_wide(num_usual, least, share)
        else:
            num_lists = max(num_usual, _FILTERED_BASE * least) * _thoroughness(share) / share
        num_lists = min(num_lists, self._num_lists)
        return num_lists * (
            _SECONDS_OF_RANKING
            + _SECONDS_OF_LIST
            + self._list_length * (_SECONDS_OF_ASKING + share * _SECONDS_OF_NODE)
        )

    def _seconds_of_all(self, selection: NodeSelection) -> float:
        """Estimate a scan of all lists, one after another as they lie in memory."""
        return (
            self._num_lists * _SECONDS_OF_LIST
            + self.num_nodes * _SECONDS_OF_ASKING
            + selection.num_nodes * _SECONDS_OF_NODE
        )

    def _scan_few(self, queries: Queries, k: int, selection: NodeSelection, reach: Reach) -> Found:
        """Scan all selected nodes. They are all near, so the rest has none."""
        if reach is Reach.REST:
            return queries.nothing(k)
        if _seconds_of_copying(selection) > self._seconds_of_all(selection):
            return self._scan_all(queries, k, selection)
        nodes, addresses = _listed(selection).codes
        scores, numbers = self._codes.search(queries, k, addresses)
        found = np.where(numbers < 0, -1, nodes[numbers]) if len(nodes) else numbers
        return clip_scores((scores, found))

    def _rank_lists(
        self, queries: Queries, selection: NodeSelection | None, *, ranks_all: bool = False
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Return scores and lists, both (q, n), nearest first, and how many of them are near, (q,).

        Under a filter, lists are added until as many selected nodes are met as without one, or up to four
        times as many where few nodes pass: a selective filter is often correlated with the query, so the
        nearest lists may hold none of what passes.
        """
        near = queries.near(self.around)
        num_ranked = self._num_lists if ranks_all else self._num_ranked_first(near, selection)
        while True:
            scores, lists = queries.nearest(self.centroids, num_ranked)
            num_near = near.counts
            if selection is not None:
                num_near = np.maximum(num_near, self._count_selected(queries, near, lists, selection))
            if lists.shape[1] == self._num_lists:
                return scores, lists, np.minimum(num_near, self._num_lists)
            if num_near.max() < lists.shape[1]:
                return scores, lists, num_near
            num_ranked = min(4 * lists.shape[1], self._num_lists)

    def _num_ranked_first(self, near: NearLists, selection: NodeSelection | None) -> int:
        num_ranked = int(near.lists.shape[1]) + 1
        if selection is not None:
            share = self._share_of(selection)
            num_ranked = (
                int(_num_wide(num_ranked, num_ranked, share)) + 1
                if share >= _WIDE
                else int(2 * num_ranked * _thoroughness(share) / share)
            )
        return min(num_ranked, self._num_lists)

    def _share_of(self, selection: NodeSelection) -> float:
        return max(1, selection.num_nodes) / self.num_nodes

    def _count_selected(
        self, queries: Queries, near: NearLists, lists: NDArray[np.int64], selection: NodeSelection
    ) -> NDArray[np.int64]:
        """Return how many lists hold enough selected nodes, (q,); more than all if too few are ranked."""
        share, least = self._share_of(selection), queries.least_near(self.around)
        if share < _WIDE:
            return self._count_thoroughly(near.counts, least, lists, selection)
        num_wide = np.array([int(_num_wide(num, least, share)) + 1 for num in near.counts.tolist()])
        are_independent = self._are_independent(lists, num_wide, selection)
        if are_independent.all():
            return num_wide
        num_selected = self._count_thoroughly(near.counts, least, lists, selection)
        return np.where(are_independent, num_wide, num_selected)

    def _count_thoroughly(
        self, num_near: NDArray[np.int64], least: int, lists: NDArray[np.int64], selection: NodeSelection
    ) -> NDArray[np.int64]:
        """Count as `_count_selected` does, for filters that may be opposed to the query.

        Each file must meet enough of its own, where without a filter all files together do: filters
        opposed to the query found 0.89 of the ten best otherwise.
        """
        num_base = np.maximum(num_near, _FILTERED_BASE * least)
        num_wanted = num_base * (self._list_length * _thoroughness(self._share_of(selection)))
        met = _listed(selection).count_in(lists).cumsum(axis=1)
        num_selected: NDArray[np.int64] = (met < num_wanted[:, None]).sum(axis=1) + 1
        return num_selected

    def _are_independent(
        self, lists: NDArray[np.int64], num_near: NDArray[np.int64], selection: NodeSelection
    ) -> NDArray[np.bool_]:
        """Whether the selection leaves out hardly more of each query's first lists, (q,), than of all."""
        first = lists[:, : int(num_near.max())]
        last = np.minimum(num_near, first.shape[1])[:, None] - 1
        num_selected, num_all = (
            np.take_along_axis(met.cumsum(axis=1), last, axis=1)[:, 0]
            for met in (_listed(selection).count_in(first), self._members.lengths[first])
        )
        share = self._share_of(selection)
        num_expected = (1 - share) * num_all
        by_chance = _DEVIATIONS * np.sqrt(share * num_expected)
        are_independent: NDArray[np.bool_] = (
            num_all - num_selected <= _MORE_LEFT_OUT * num_expected + by_chance
        )
        return are_independent

    def _parameters_of(self, num_probed: int, selection: NodeSelection | None) -> Any:
        """Return FAISS's parameters; those without a selection are kept, because building takes time."""
        if selection is not None:
            selector = faiss.IDSelectorBitmap(selection.bitmap)
            return faiss.SearchParametersIVF(nprobe=num_probed, sel=selector)
        known = self._parameters.get(num_probed)
        if known is None:
            known = self._parameters[num_probed] = faiss.SearchParametersIVF(nprobe=num_probed)
        return known

    def _scan_all(self, queries: Queries, k: int, selection: NodeSelection | None) -> Found:
        """Scan every list. No centroid is ranked, so that nothing of the answer depends on them."""
        shape = (len(queries), self._num_lists)
        lists = np.ascontiguousarray(np.broadcast_to(np.arange(self._num_lists), shape))
        scores = np.zeros(shape, np.float32)
        pointers = (faiss.swig_ptr(lists), faiss.swig_ptr(scores))
        return self._scan_lists(queries, k, pointers, self._parameters_of(self._num_lists, selection))

    def _scan_lists(self, queries: Queries, k: int, probed: tuple[Any, Any], parameters: Any) -> Found:
        """Scan lists. `probed` are pointers to numbers and scores of each query's, both (q, probes)."""
        found = queries.empty(k)
        into = (faiss.swig_ptr(found[0]), faiss.swig_ptr(found[1]))
        self._index.search_preassigned_c(len(queries), queries.pointer, k, *probed, *into, False, parameters)
        return clip_scores(found)

    def assign(self, embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
        """Return the list whose centroid is nearest to each embedding, (n,)."""
        use_one_thread()
        lists: NDArray[np.int64] = self.centroids.assign(embeddings.astype(np.float32), 1)[:, 0]
        return np.ascontiguousarray(lists)

    def select(self, is_node: NDArray[np.bool_]) -> NodeSelection:
        return self._select_bits(pack_bits(is_node), int(np.count_nonzero(is_node)))

    def deselect(self, selection: NodeSelection, nodes: NDArray[np.int64]) -> NodeSelection:
        return self._select_bits(without_bits(selection.bitmap, nodes), selection.num_nodes - len(nodes))

    def _select_bits(self, bitmap: NDArray[np.uint8], num_nodes: int) -> ListedSelection:
        return ListedSelection(self._members, bitmap, num_nodes, self._codes.addresses)

    def embeddings_of(self, nodes: NDArray[np.int64]) -> Embeddings:
        return self._codes.embeddings(self._codes.addresses(*self._members.find(nodes)))

    def parts(self) -> Iterator[VectorPart]:
        lists = self._index.invlists
        for number in range(self._num_lists):
            length = int(lists.list_size(number))
            if length:
                nodes = faiss.rev_swig_ptr(lists.get_ids(number), length)
                codes = faiss.rev_swig_ptr(lists.get_codes(number), length * self._index.code_size)
                yield nodes, codes.view(np.float16).reshape(length, -1)


def _listed(selection: NodeSelection) -> ListedSelection:
    assert isinstance(selection, ListedSelection)  # it was made by the lists that it is given to
    return selection


def _seconds_of_copying(selection: NodeSelection) -> float:
    """Estimate a scan of copies of the selected nodes."""
    return selection.num_nodes * _SECONDS_OF_COPIED_NODE


def _num_wide(num_near: int, least: int, share: float) -> float:
    """Return how many lists are near under a wide selection that does not depend on the query.

    They hold as many selected nodes as `num_near` lists hold nodes, and as `least` lists do.
    """
    return _WIDE_MARGIN * max(num_near, least / share) / share


def _thoroughness(share: float) -> float:
    """Return how many times as many nodes as without a filter are met, where a share of them is selected."""
    return min(_MAX_THOROUGHNESS, 1 / share)
