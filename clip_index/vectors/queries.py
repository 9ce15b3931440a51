"""The queries of one search, with what the searches of its segments share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache, partial
from typing import Any, TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.vectors.lists.codebook import Codebook
from clip_index.vectors.near_lists.effort import Effort
from clip_index.vectors.near_lists.rule import NearRule
from clip_index.vectors.near_lists.spread import Spread

Found: TypeAlias = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Scores and nodes (or lists) of each query, both (q, k), best first; −1 where there are fewer."""

MIN_DEPTH = 100
"""Searches for fewer hits than this scan what a search for this many scans, so their answers agree."""

_NODES_MET_OF_HIT = 4
_LEAST_OF_GAP = 0.95  # of the greatest gap of all segments
_MOST_OF_LEFT_OUT = 1.5  # times the least share that a segment may leave out
_MIN_RANKED = 32  # of the centroids; fewer take as long


class Reach(Enum):
    """Which of a file's nodes a search looks at. Every node is either near or in the rest."""

    NEAR = "near"
    """Where the best nodes of a query are expected: all nodes of a flat file, the nearest lists of others."""

    REST = "rest"
    """All other nodes."""

    ALL = "all"
    """Every node: an exact answer, which costs a scan of the file."""


@dataclass(frozen=True, slots=True)
class Around:
    """The lists around some centroids: those of one file, or those of all files of an index together.

    `centroids` are a FAISS index. `nodes_per_row` is how many nodes a row has in the mean, at least 1.
    `spread` is None where it is not known for the centroids.
    """

    centroids: Any
    num_nodes: int
    effort: Effort
    nodes_per_row: float = 1.0
    spread: Spread | None = None

    @property
    def num_lists(self) -> int:
        return int(self.centroids.ntotal)

    @property
    def near_rule(self) -> NearRule:
        """What tells how many of the lists a query scans."""
        return NearRule(self.effort, self.spread, self.num_lists, self.num_nodes / self.nodes_per_row)


def join_around(parts: Sequence[Around]) -> Around:
    """Return the lists of all parts together, which lie around the same centroids.

    What was measured for segments of one kind differs by chance, by a tenth or so. Their mean serves all of
    them; a segment that needs much more gets nearly what it needs.
    """
    efforts = [part.effort for part in parts]
    num_nodes = [part.num_nodes for part in parts]
    gaps, left_out, least_left_out = np.array([(e.gap, e.left_out, e.least_left_out) for e in efforts]).T
    effort = Effort(
        max(float(np.average(gaps, weights=num_nodes)), _LEAST_OF_GAP * float(gaps.max())),
        max(effort.usual_lists for effort in efforts),
        left_out=_join_left_out(left_out, num_nodes),
        least_left_out=_join_left_out(least_left_out, num_nodes),
        most_lists=max(effort.most_lists for effort in efforts),
    )
    nodes_per_row = max(part.nodes_per_row for part in parts)
    return Around(parts[0].centroids, sum(num_nodes), effort, nodes_per_row, parts[0].spread)


def _join_left_out(shares: NDArray[np.float64], num_nodes: list[int]) -> float:
    """Return the geometric mean of shares, which differ by factors; 0 if one of them is not known."""
    if not shares.all():
        return 0.0
    mean = np.exp(np.average(np.log(shares), weights=num_nodes))
    return min(float(mean), _MOST_OF_LEFT_OUT * float(shares.min()))


@dataclass(frozen=True, slots=True)
class NearLists:
    """The lists that each query scans without a filter.

    `lists`, (q, probes), are in the order in which they lie in files, where memory is read fastest, and
    −1 stands for those beyond the `counts`, (q,), of a query.
    """

    lists: NDArray[np.int64]
    counts: NDArray[np.int64]
    ranked: Found
    """Scores and lists, as they were ranked."""

    def of_query(self, query: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the lists of one query, (n,), ascending, and their centroids' scores, (n,)."""
        count = self.counts[query]
        scores, lists = self.ranked[0][query, :count], self.ranked[1][query, :count]
        order = np.argsort(lists)
        return lists[order], scores[order]

    @property
    def pointers(self) -> tuple[Any, Any]:
        """Pointers to the lists and to their scores, for FAISS."""
        return faiss.swig_ptr(self.lists), pointer_to_zeros(self.lists.size)


class Queries:
    """Query embeddings, (q, dimension) float32, of one search with one filter or none.

    Only the thread that searches uses them.

    Segments and tails of all shards have lists around the same centroids. The centroids are ranked
    once for all of them, and all of them are searched in the same lists.

    `depth` is how many hits the near lists should be good for. It follows from the search and
    not from how many nodes a step of it asks for, so every step scans the same near lists. The pages
    of a ranking have one depth, however far they lead.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        depth: int = MIN_DEPTH,
        *,
        is_paged: bool = False,
        around: Mapping[int, Around] | None = None,
    ) -> None:
        """`around` are the lists of all files together, by the `id` of their centroids."""
        self.is_paged = is_paged
        self.embeddings: Embeddings = np.ascontiguousarray(embeddings, np.float32)
        self.pointer = faiss.swig_ptr(self.embeddings)
        self._num_queries = len(embeddings)
        self._num_met = _NODES_MET_OF_HIT * max(depth, MIN_DEPTH)
        self._around = around or {}
        self._known: dict[int, tuple[object, NDArray[np.int64], object]] = {}
        self._ranked: dict[int, Found] = {}
        self._along: tuple[Codebook, Embeddings] | None = None
        self._near: dict[tuple[int, int, Effort], NearLists] = {}

    def __len__(self) -> int:
        return self._num_queries

    def near(self, own: Around) -> NearLists:
        """Return the lists that are searched around the centroids of `own`, a file's lists.

        They are those that the calibrated effort tells, and always a few.
        """
        around = self.around_of(own)
        least = self.least_near(around)
        key = (id(around.centroids), least, around.effort)
        found = self._near.get(key)
        if found is None:
            found = self._near[key] = self._find_near(around, least)
        return found

    def know_counts(self, lists: object, counts: NDArray[np.int64], kept: object = None) -> None:
        """Remember how many lists of a file are near to each query, (q,), where scans have told it.

        `kept` is what these scans have found. The lists are kept alive, because their `id` is the key. The
        selection is no part of it: a search has one filter, which selects the same nodes of a file at every
        step, but another thread may have removed the selection from its cache, and it was built anew.
        """
        self._known[id(lists)] = (lists, counts, kept)

    def known_counts(self, lists: object) -> NDArray[np.int64] | None:
        known = self._known.get(id(lists))
        return None if known is None else known[1]

    def kept_scans(self, lists: object) -> Any:
        """Return what the scans of the near lists have found; None if nothing was kept."""
        known = self._known.get(id(lists))
        return None if known is None else known[2]

    def around_of(self, own: Around) -> Around:
        """Return the lists of all files around the centroids of `own`, a file's lists."""
        return self._around.get(id(own.centroids), own)

    def first_lists(self, own: Around, counts: NDArray[np.int64]) -> NearLists:
        """Return the first lists of each query around the centroids of `own`, of `counts`, (q,), each."""
        return _near_lists(self.nearest(own.centroids, int(counts.max())), counts)

    def usual_near(self, own: Around) -> int:
        """Return how many lists nine of ten queries scan around the centroids of `own`, a file's lists."""
        around = self.around_of(own)
        return min(around.effort.usual_lists, around.num_lists)

    def least_near(self, around: Around) -> int:
        """Return how many lists of mean length hold the nodes that a query meets at least."""
        num_met = self._num_met * around.nodes_per_row
        return min(around.num_lists, int(num_met * around.num_lists / around.num_nodes) + 1)

    def _find_near(self, around: Around, least: int) -> NearLists:
        """Rank a little more than most queries need; ranking again costs as much as ranking."""
        rule = around.near_rule
        num_ranked = max(rule.num_ranked_first, least)
        while True:
            ranked = self.nearest(around.centroids, min(num_ranked, rule.num_lists))
            counts = [
                rule.count(scores, partial(self._deviation, query)) for query, scores in enumerate(ranked[0])
            ]
            known = [max(least, count) for count in counts if count is not None]
            if len(known) == len(counts):
                return _near_lists(ranked, np.array(known))
            num_ranked = 4 * ranked[0].shape[1]

    def _deviation(self, query: int, spread: Spread) -> float:
        if spread.codebook is None:
            return spread.deviation(self.embeddings[query])
        return spread.deviation_along(self.along(spread.codebook)[query])

    def along(self, codebook: Codebook) -> Embeddings:
        """Return the queries along all directions of a codebook, (q, D)."""
        if self._along is None or self._along[0] is not codebook:
            self._along = codebook, codebook.along(self.embeddings)
        return self._along[1]

    def nearest(self, centroids: Any, num_lists: int) -> Found:
        """Return at least the `num_lists` nearest of the centroids (a FAISS index), at most all of them."""
        known = self._ranked.get(id(centroids))
        if known is None or known[1].shape[1] < num_lists:
            num_ranked = min(max(_MIN_RANKED, num_lists), centroids.ntotal)
            known = self._ranked[id(centroids)] = self._rank(centroids, num_ranked)
        return known

    def _rank(self, centroids: Any, num_lists: int) -> Found:
        scores, lists = self.empty(num_lists)
        centroids.search_c(len(self), self.pointer, num_lists, faiss.swig_ptr(scores), faiss.swig_ptr(lists))
        return scores, lists

    def one(self, query: int) -> Queries:
        """Return one of the queries by itself, without what is known of lists."""
        if len(self) == 1:
            return self
        one = Queries(self.embeddings[query : query + 1])
        if self._along is not None:
            one._along = self._along[0], self._along[1][query : query + 1]
        return one

    def empty(self, k: int) -> Found:
        """Return arrays for k results of each query."""
        return np.empty((self._num_queries, k), np.float32), np.empty((self._num_queries, k), np.int64)

    def nothing(self, k: int) -> Found:
        """Return k results of each query that say that nothing is found."""
        shape = (self._num_queries, k)
        return np.full(shape, -1, np.float32), np.full(shape, -1, np.int64)


def _near_lists(ranked: Found, counts: NDArray[np.int64]) -> NearLists:
    num_probed = int(counts.max())
    lists = ranked[1][:, :num_probed].copy()
    if len(counts) > 1:
        lists[np.arange(num_probed) >= counts[:, None]] = -1
    lists.sort(axis=1)
    return NearLists(lists, counts, ranked)


def pointer_to_zeros(num: int) -> Any:
    """Return a pointer to `num` zeros or more: FAISS takes scores of lists, and does not use them here."""
    return faiss.swig_ptr(_zeros(num.bit_length()))


@cache
def _zeros(num_bits: int) -> NDArray[np.float32]:
    """Zeros that stay where they are for ever, because a pointer to them keeps nothing alive."""
    return np.zeros(1 << num_bits, np.float32)
