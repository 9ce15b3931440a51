"""The inverted lists of many files around the same centroids, scanned in one call.

All segments and tails of all shards are scanned in the same lists for a query. A call for each of them
costs about 15 µs in Python and FAISS beside the scan, and leaves k nodes of each to be ranked again. So the
lists of one file are stacked upon those of another: those of the second file have the numbers after those
of the first. Nothing is copied, so stacking a hundred files takes less than a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.lists.inverted_lists import InvertedLists
from clip_index.vectors.lists.listed_codes import ListedCodes
from clip_index.vectors.lists.scan_codes import Candidates, StackedCodes
from clip_index.vectors.lists.search_parameters import SearchParameters
from clip_index.vectors.near_lists.effort import Effort
from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.process_memory import ProcessMemory
from clip_index.vectors.queries import Found, NearLists, Queries, pointer_to_zeros
from clip_index.vectors.vectors import Vectors, clip_scores, use_one_thread

_LIST_BITS = 32  # FAISS's label of a node is the number of its list, and its position there in 32 bits
_POSITION = 2**_LIST_BITS - 1
_ID_SHIFT = 3
_IDS = ProcessMemory(1 << _ID_SHIFT)

_MIN_SCANNED = 5_000
"""Of fewer nodes, a scan of their embeddings takes less than the steps of a scan by codes: about 0.15 ms."""
_NODES_OF_CANDIDATE = 8
"""To score more than an eighth of the nodes takes as long as to scan them in order."""
_MORE_CANDIDATES = 1.25  # than nine of ten queries need; a few more cost less than another scan
_LEAST_MORE = 1.5
_LEAST_OF_DEVIATIONS = 0.85  # of the greatest of all files
_BIAS_MARGIN = 1.5  # because the scores of those that are found are the least biased ones
_PART_OF_STEP, _MOST_STEPS = 4, 10
_FIRST_SCORED = 100


class StackPart(NamedTuple):
    """The lists of one segment or tail, and its rows."""

    lists: InvertedLists
    node_rows: NodeRows
    num_rows: int


def part_of_stack(vectors: Vectors, node_rows: NodeRows, num_rows: int) -> StackPart | None:
    """Return what can be stacked, because a plain search of it needs no more than a scan of its near lists.

    Codes are scored again, each file's with its own bounds. Texts of several windows are completed.
    """
    if type(vectors) is not InvertedLists or not node_rows.has_distinct_rows:
        return None
    return StackPart(vectors, node_rows, num_rows)


class StackedLists:
    """Lists that can be stacked, all around the same centroids. Immutable and thread-safe."""

    def __init__(self, files: Sequence[InvertedLists], former: StackedLists | None = None) -> None:
        """`former` is an earlier stack around these centroids. What it knows of the same files is kept."""
        self._files = tuple(files)  # kept alive, because FAISS reads their lists
        self.around = files[0].around
        self._num_lists = self.around.num_lists
        self._index, self._lists = _stack(files)
        self._first_lists = (np.arange(len(files)) * self._num_lists)[:, None]
        self.num_nodes = int(self._index.ntotal)
        self._first_ids = self._known_first_ids(former)
        """The address of each list's first id; 0 until somebody asks for it."""
        self._parameters = SearchParameters()
        self._codes: StackedCodes | None = _stack_codes(files, None if former is None else former._codes)
        self._without_codes = self._first_lists
        if self._codes is not None:
            are_without = [number not in self._codes.numbers for number in range(len(files))]
            self._without_codes = self._first_lists[are_without]
        self._embeddings = ListedCodes(self._index)
        # A tail has the effort of its guide, but no codes.
        with_codes = [one for one in files if one.scan_codes is not None]
        efforts = [one.around.effort for one in with_codes]
        self._scan_deviations = _join_deviations(efforts, [one.num_nodes for one in with_codes])
        self._num_candidates = int(_MORE_CANDIDATES * sum(effort.scan_candidates for effort in efforts))

    def _known_first_ids(self, former: StackedLists | None) -> NDArray[np.int64]:
        """Return what the former stack knows of the same files, (files · lists,), with 0 for the others."""
        known = np.zeros((len(self._files), self._num_lists), np.int64)
        if former is not None:
            of_files = former._first_ids.reshape(-1, self._num_lists)
            places = {id(file): place for place, file in enumerate(former._files)}
            for own, file in zip(known, self._files, strict=True):
                if id(file) in places:
                    own[:] = of_files[places[id(file)]]
        return known.ravel()

    def search(self, queries: Queries, k: int, near: NearLists | None = None) -> Found:
        """Return the k best nodes of each query in the near lists of all files: scores and labels.

        −1 stands for fewer. `find` tells whose label it is. `near` replaces the near lists of a plain search.
        """
        use_one_thread()
        near = near or queries.near(self.around)
        by_codes = [] if self._codes is None else self._find_long(queries, near, k)
        if not by_codes:
            return self._scan(queries, k, self._probed(near))
        scores, labels = queries.empty(k)
        for query in range(len(queries)):
            one = queries.one(query)
            lists, of_lists = near.of_query(query)
            if query in by_codes:
                found = self._search_by_codes(one, k, lists, of_lists)
            else:
                found = self._scan(one, k, (lists + self._first_lists).reshape(1, -1))
            scores[query], labels[query] = found[0][0], found[1][0]
        return scores, labels

    def _find_long(self, queries: Queries, near: NearLists, k: int) -> list[int]:
        """Return the queries whose near lists are so long that candidates are taken by codes.

        A ranking of pages goes on where the last one ended. So it does without.
        """
        assert self._codes is not None
        least = _MIN_SCANNED if not queries.is_paged else self.num_nodes + 1
        least = max(least, _NODES_OF_CANDIDATE * max(k, self._num_candidates))
        if len(queries) == 1:  # then its lists are all that there are
            return [0] if self._codes.count(near.lists[0]) >= least else []
        of_all = (row[row >= 0] for row in near.lists)
        return [query for query, lists in enumerate(of_all) if self._codes.count(lists) >= least]

    def _search_by_codes(
        self, query: Queries, k: int, lists: NDArray[np.int64], of_lists: NDArray[np.float32]
    ) -> Found:
        """Score the best by codes from their embeddings, until no other can score as high as the k-th."""
        assert self._codes is not None
        parameters = self._parameters.of(self._codes.num_probed(len(lists)))
        others = None
        if self._without_codes.size:
            others = self._scan(query, k, (lists + self._without_codes).reshape(1, -1))
        coded = self._codes.code_query(query)
        error = self._scan_deviations * float(coded.deviations[0])
        num_nodes, num_asked = self._codes.count(lists), max(2 * k, self._num_candidates)
        while _NODES_OF_CANDIDATE * num_asked <= num_nodes:
            found = self._codes.scan(coded, num_asked, lists, of_lists, parameters)
            if len(found.scores) < num_asked:
                break  # to a query of zeros, FAISS finds none
            best, needed = self._score_best(query, k, found, others, error)
            if found.scores[-1] < needed:
                return best
            num_asked = _num_at_least(needed, found.scores)
        return self._scan(query, k, (lists + self._first_lists).reshape(1, -1))

    def _score_best(
        self, query: Queries, k: int, found: Candidates, others: Found | None, error: float
    ) -> tuple[Found, float]:
        """Return the k best of candidates and others, and the score by its code that any better node has.

        Scores by codes are too low by up to `error`. They are lower still where a node resembles the query
        so closely that it has the same of what codes do not tell. If the k-th best does, there may be many,
        as of copies of one picture. So what the nodes from there on are off by is taken into account.
        """
        num_first = min(2 * k + _FIRST_SCORED, len(found.ids))
        labels = self._labels_of(found.ids[:num_first])
        scores, numbers = self._score(query, num_first, labels)
        best = scores[:, :k], labels[numbers[:, :k]]
        if others is not None:
            best = _join(others, best, k)
        least = best[0][0, -1]
        behind = slice(int(np.searchsorted(-scores[0], -least)), None)
        too_low = scores[0, behind] - found.scores[numbers[0, behind]]
        bias = max(0.0, float(np.add.reduce(too_low)) / too_low.size) if too_low.size else 0.0
        needed = least - error - _BIAS_MARGIN * bias
        num_near = int(np.searchsorted(-found.scores, -needed, side="right"))
        if num_near > num_first:
            labels = self._labels_of(found.ids[num_first:num_near])
            scores, numbers = self._score(query, min(k, num_near - num_first), labels)
            best = _join(best, (scores, labels[numbers]), k)
        return best, needed

    def _labels_of(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels of nodes, (n,), by their ids among the codes."""
        assert self._codes is not None
        files, lists, positions = self._codes.find(ids)
        return (files * self._num_lists + lists) << _LIST_BITS | positions

    def _score(self, query: Queries, k: int, labels: NDArray[np.int64]) -> Found:
        """Return the scores by their embeddings, and the places, of the k best of some nodes, (n,).

        Both are (1, k).
        """
        order = labels.argsort()  # as they lie in memory
        labels = labels[order]
        addresses = self._embeddings.addresses(labels >> _LIST_BITS, labels & _POSITION)
        scores, numbers = self._embeddings.search(query, k, addresses)
        return clip_scores((scores, order[numbers]))

    def _scan(self, queries: Queries, k: int, probed: NDArray[np.int64]) -> Found:
        """Scan the embeddings in some lists of the stack, (q, probes)."""
        num_probed = probed.shape[1]
        if not num_probed:
            return queries.nothing(k)
        scores, labels = queries.empty(k)
        self._index.search_preassigned_c(
            len(queries),
            queries.pointer,
            k,
            faiss.swig_ptr(probed),
            pointer_to_zeros(probed.size),
            faiss.swig_ptr(scores),
            faiss.swig_ptr(labels),
            True,  # return labels
            self._parameters.of(num_probed),
        )
        return clip_scores((scores, labels))

    def _probed(self, near: NearLists) -> NDArray[np.int64]:
        """Return the near lists in each file, (q, probes), in the order in which they lie there."""
        probed: NDArray[np.int64] = near.lists[:, None] + self._first_lists
        if len(probed) > 1:
            probed[np.broadcast_to(near.lists[:, None] < 0, probed.shape)] = -1
        return probed.reshape(len(probed), -1)

    def find(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the file that each label belongs to, and the node there, both (n,)."""
        lists = labels >> _LIST_BITS
        addresses = (labels & _POSITION) << _ID_SHIFT
        addresses += self._first_ids_of(lists)
        nodes: NDArray[np.int64] = _IDS.read(addresses).view(np.int64)
        return lists // self._num_lists, nodes

    def _first_ids_of(self, lists: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the address of each list's first id. FAISS is asked once for a list."""
        found = self._first_ids.take(lists)
        if not found.all():
            for number in np.unique(lists[found == 0]).tolist():
                self._first_ids[number] = int(self._lists.get_ids(number))
            found = self._first_ids.take(lists)
        return found


def _stack_codes(files: Sequence[InvertedLists], former: StackedCodes | None) -> StackedCodes | None:
    """Return the codes of those files that have some: the former ones, if they are the same.

    Of two files with equal tags, one does without.
    """
    by_tag = {
        one.scan_codes.tag: (number, one.scan_codes)
        for number, one in enumerate(files)
        if one.scan_codes is not None
    }
    found = list(by_tag.values())
    if former is not None and former.has(found):
        return former
    return StackedCodes(found) if found else None


def _join_deviations(efforts: Sequence[Effort], num_nodes: Sequence[int]) -> float:
    """Return how far scores by the codes of all files are off. Their measured errors differ by chance."""
    if not efforts:
        return 0.0
    deviations = [effort.scan_deviations for effort in efforts]
    return max(float(np.average(deviations, weights=num_nodes)), _LEAST_OF_DEVIATIONS * max(deviations))


def _num_at_least(least: float, scores: NDArray[np.float32]) -> int:
    """Estimate how many candidates score a least value, from the scores of fewer, best first.

    Their number grows by about the same factor for each step in score; by a little less, the lower it is.
    """
    num = len(scores)
    step = float(scores[num // _PART_OF_STEP] - scores[-1])
    factor = _PART_OF_STEP ** min((float(scores[-1]) - least) / max(step, 1e-6), _MOST_STEPS)
    return int(num * max(_LEAST_MORE, factor)) + 1


def _join(first: Found, second: Found, k: int) -> Found:
    """Return the k best of two results of one query, both best first."""
    scores = np.concatenate([first[0][0], second[0][0]])
    labels = np.concatenate([first[1][0], second[1][0]])
    order = np.where(labels < 0, np.inf, -scores).argsort(kind="stable")[:k]
    return scores[None, order], labels[None, order]


def _stack(files: Sequence[InvertedLists]) -> tuple[Any, Any]:
    """Return a FAISS index over the lists of all files, and these lists. Callers keep the files alive."""
    lists = faiss.InvertedListsPtrVector()
    for one in files:
        lists.push_back(one.stored_lists)
    stack = faiss.VStackInvertedLists(lists.size(), lists.data())
    dimension = int(files[0].centroids.d)
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(dimension),  # an empty one, because the lists are given to each search
        dimension,
        int(stack.nlist),
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,  # no differences from the centroids
        False,  # no lists of its own
    )
    index.replace_invlists(stack)
    index.is_trained = True
    index.ntotal = sum(one.num_nodes for one in files)
    return index, stack
