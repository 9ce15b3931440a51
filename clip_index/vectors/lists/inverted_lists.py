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

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.storage.pack import ByteSink
from clip_index.vectors.calibration import TARGET_RECALL, calibrate
from clip_index.vectors.calibration_queries import may_train
from clip_index.vectors.centroid_set import CentroidSet, nearest_lists, num_lists_of, train_centroids
from clip_index.vectors.lists.list_members import ListedSelection, ListMembers, listed
from clip_index.vectors.lists.list_ranking import ListRanking
from clip_index.vectors.lists.list_trial import KeptScans, ScanLists
from clip_index.vectors.lists.list_writer import write_listed
from clip_index.vectors.lists.listed_codes import ListedCodes
from clip_index.vectors.lists.scan_codes import ScanCodes
from clip_index.vectors.lists.search_parameters import SearchParameters
from clip_index.vectors.near_lists.effort import UNCALIBRATED, Effort
from clip_index.vectors.queries import Around, Found, Queries, Reach, pointer_to_zeros
from clip_index.vectors.scattered_codes import ScatteredCodes
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
    file: ByteSink,
    index: Any,
    embeddings: NDArray[np.float16],
    around: CentroidSet,
    known: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """Write embeddings in the lists of an empty index of `build_lists`; return the list of each, (n,).

    `known` are lists that need not be looked for.
    """
    lists = around.lists_of(embeddings, known)
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
    """Add embeddings to an index of `build_lists`, each to the list that it is assigned to.

    Their codes are fp16 numbers as they are. FAISS takes each behind the number of its list.
    """
    num_bytes = int(index.coarse_code_size())
    codes = np.empty((len(embeddings), num_bytes + int(index.code_size)), np.uint8)
    codes[:, :num_bytes] = lists.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :num_bytes]
    codes[:, num_bytes:] = np.ascontiguousarray(embeddings).view(np.uint8)
    index.add_sa_codes(codes, np.arange(index.ntotal, index.ntotal + len(codes)))


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
        self.scan_codes: ScanCodes | None = None
        """Codes of the same nodes in the same lists, for long scans of stacked lists."""
        self._index = index
        self.centroids = centroids
        lists = faiss.downcast_InvertedLists(index.invlists)
        lists.prefetch_nthread = 0  # otherwise FAISS starts 32 threads for each search
        self.stored_lists = lists
        self.num_nodes = int(index.ntotal)
        self.members = ListMembers(lists, self.num_nodes, list_of_node)
        self._codes = ListedCodes(index)
        self.codes: ScatteredCodes | None = self._codes
        spread = None if shared is None else shared.spread
        self.around = Around(centroids, self.num_nodes, effort, nodes_per_row, spread)
        self._num_lists = int(index.nlist)
        self._ranking = ListRanking(self.around, self.members, self._num_lists)
        self._parameters = SearchParameters()

    def search(
        self, queries: Queries, k: int, selection: NodeSelection | None, reach: Reach = Reach.NEAR
    ) -> Found:
        """Return the k best nodes of each query in the lists within reach; −1 for fewer."""
        use_one_thread()
        if reach is Reach.ALL:
            return self._scan_all(queries, k, selection)
        if selection is not None and self._ranking.are_few(queries, selection.num_nodes):
            return self._scan_few(queries, k, selection, reach)
        if selection is None and reach is Reach.NEAR:
            near = queries.near(self.around)
            return self._scan_lists(queries, k, near.pointers, self._parameters_of(near.lists.shape[1], None))
        kept = queries.kept_scans(self._ranking) or KeptScans(self.scan_selected, k)
        scores, lists, num_near = self._rank(queries, selection, kept, ranks_all=reach is Reach.REST)
        tried = kept.best(queries, k) if reach is Reach.NEAR else None
        if tried is not None:
            return tried
        ranks = np.arange(lists.shape[1])
        are_probed = (ranks < num_near[:, None]) == (reach is Reach.NEAR)
        num_probed = int(num_near.max()) if reach is Reach.NEAR else len(ranks)
        probed = np.sort(np.where(are_probed, lists, -1)[:, :num_probed], axis=1)  # as they lie in memory
        their_scores = np.ascontiguousarray(scores[:, :num_probed])
        pointers = (faiss.swig_ptr(probed), faiss.swig_ptr(their_scores))
        return self._scan_lists(queries, k, pointers, self._parameters_of(num_probed, selection))

    def _rank(
        self,
        queries: Queries,
        selection: NodeSelection | None,
        scan: ScanLists[NodeSelection],
        *,
        ranks_all: bool = False,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        selected = None if selection is None else listed(selection)
        return self._ranking.rank(queries, selected, scan, ranks_all=ranks_all)

    def count_near(self, queries: Queries, selection: NodeSelection | None) -> int:
        if selection is not None and self._ranking.are_few(queries, selection.num_nodes):
            return selection.num_nodes
        _, lists, num_near = self._rank(queries, selection, self.scan_selected)
        lengths = self.members.lengths if selection is None else listed(selection).num_in_list
        met = lengths[lists].cumsum(axis=1)
        return int(np.take_along_axis(met, num_near[:, None] - 1, axis=1).max())

    def are_near(
        self, queries: Queries, query: int, nodes: NDArray[np.int64], selection: NodeSelection | None
    ) -> NDArray[np.bool_]:
        if selection is not None and self._ranking.are_few(queries, selection.num_nodes):
            return np.ones(len(nodes), np.bool_)
        _, lists, num_near = self._rank(queries, selection, self.scan_selected)
        are_near: NDArray[np.bool_] = np.isin(self.members.lists_of(nodes), lists[query, : num_near[query]])
        return are_near

    def _scan_few(self, queries: Queries, k: int, selection: NodeSelection, reach: Reach) -> Found:
        """Scan all selected nodes. They are all near, so the rest has none."""
        if reach is Reach.REST:
            return queries.nothing(k)
        if self._ranking.is_scan_cheaper_than_copies(selection.num_nodes):
            return self._scan_all(queries, k, selection)
        nodes, addresses = listed(selection).codes
        scores, numbers = self._codes.search(queries, k, addresses)
        found = np.where(numbers < 0, -1, nodes[numbers]) if len(nodes) else numbers
        return clip_scores((scores, found))

    def _parameters_of(self, num_probed: int, selection: NodeSelection | None) -> Any:
        parameters = self._parameters if selection is None else listed(selection).parameters
        return parameters.of(num_probed)

    def scans_all(self, queries: Queries, selection: NodeSelection) -> bool:
        """Whether a search scans all selected nodes, so that no list need be ranked."""
        return self._ranking.are_few(queries, selection.num_nodes)

    def know(self, queries: Queries, counts: NDArray[np.int64], kept: KeptScans | None) -> None:
        """Let a search know how many lists are near to each query, (q,), and what was found there."""
        queries.know_counts(self._ranking, counts, kept)

    def scan_selected(
        self, queries: Queries, k: int, probed: NDArray[np.int64], selection: NodeSelection, /
    ) -> Found:
        """Scan lists, (q, probes) ascending, for the k best selected nodes of each query."""
        pointers = (faiss.swig_ptr(probed), pointer_to_zeros(probed.size))
        return self._scan_lists(queries, k, pointers, self._parameters_of(probed.shape[1], selection))

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

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of nodes in each list, (lists,)."""
        return self.members.lengths

    def assign(self, embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
        """Return the list whose centroid is nearest to each embedding, (n,)."""
        return nearest_lists(self.centroids, embeddings)

    def select(self, is_node: NDArray[np.bool_]) -> NodeSelection:
        return self._select_bits(pack_bits(is_node), int(np.count_nonzero(is_node)))

    def deselect(self, selection: NodeSelection, nodes: NDArray[np.int64]) -> NodeSelection:
        bitmap = without_bits(selection.bitmap, nodes)
        left = self._select_bits(bitmap, selection.num_nodes - len(nodes))
        left.know_counts(listed(selection), nodes)
        return left

    def _select_bits(self, bitmap: NDArray[np.uint8], num_nodes: int) -> ListedSelection:
        return ListedSelection(self.members, bitmap, num_nodes, self._codes.addresses)

    def are_few(self, queries: Queries, num_nodes: int) -> bool:
        ranking = self._ranking
        return ranking.are_few(queries, num_nodes) and not ranking.is_scan_cheaper_than_copies(num_nodes)

    def addresses_of(self, nodes: NDArray[np.int32]) -> NDArray[np.int64]:
        return self._codes.addresses(*self.members.find(nodes))

    def embeddings_of(self, nodes: NDArray[np.int64]) -> Embeddings:
        return self._codes.embeddings(self._codes.addresses(*self.members.find(nodes)))

    def lists_of(self, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the list that each node lies in, (n,)."""
        return self.members.lists_of(nodes)

    def parts(self) -> Iterator[VectorPart]:
        lists = self._index.invlists
        for number in range(self._num_lists):
            length = int(lists.list_size(number))
            if length:
                nodes = faiss.rev_swig_ptr(lists.get_ids(number), length)
                codes = faiss.rev_swig_ptr(lists.get_codes(number), length * self._index.code_size)
                yield nodes, codes.view(np.float16).reshape(length, -1)
