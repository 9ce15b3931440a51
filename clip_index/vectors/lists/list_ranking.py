"""Which inverted lists a search scans, and of which selections it scans the nodes one by one.

Every list is either near or in the rest. So all steps of a search, the pages of a ranking among them, agree
on which ones are near.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from clip_index.vectors.lists.list_trial import NUM_SETTLED, VAIN_STEPS, ScanLists, count_until_settled
from clip_index.vectors.queries import Around, NearLists, Queries
from clip_index.vectors.scattered_codes import SECONDS_OF_ASKING, SECONDS_OF_COPIED_NODE

_OPPOSED_BASE = 4
"""Times as many nodes are met before further lists are tried, if a selection is opposed to the query."""

_WIDE = 0.45
_WIDE_MARGIN = 0.15
_MARGIN_OF_LEFT_OUT = 3  # times the share that is left out, where that is less: few dead rows cost little
_MORE_LEFT_OUT = 1.1
_DEVIATIONS = 3
"""A wide selection keeps about half of the nodes or more. If the near lists hold hardly more of the nodes
that it leaves out than chance would put there, it does not depend on the query, and few lists are scanned:
recall@10 stayed 0.998 or more for filters that keep a half. Of filters that keep a fifth it fell to 0.98,
because some depend on what lies behind the near lists."""

_NEAREST_PART = 4  # a fourth of the near lists
_EMPTIED = 0.15  # of the selected nodes that they would have by chance

# Measured for 512 dimensions in fp16 that no cache holds. Their ratios matter, not what they are.
_SECONDS_OF_RANKING = 0.2e-6  # a list, where many are ranked
_SECONDS_OF_LIST = 0.3e-6  # that is scanned
_SECONDS_OF_TRIAL = 300e-6  # of a file, beside the scans
_OPPOSED_SHARE = 1 / 2  # of the filters that keep less than half: what they are is not known beforehand
_SECONDS_OF_NODE = 280e-9  # that is selected
_SECONDS_OF_CODE = 15e-9
_SECONDS_OF_CANDIDATES = 200e-6  # of all, if codes are scanned


class Members(Protocol):
    """The nodes of lists, of one file or of several."""

    num_nodes: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of nodes in each list, (lists,)."""
        ...


class Selected(Protocol):
    """Selected nodes of lists, of one file or of several."""

    num_nodes: int

    def count_in(self, lists: NDArray[np.int64], /) -> NDArray[np.int64]:
        """Return how many selected nodes lists have, of the shape of `lists`."""
        ...


class ListRanking:
    """The lists of one file, or of several around the same centroids. Immutable and thread-safe."""

    def __init__(self, around: Around, members: Members, num_lists: int) -> None:
        """`around` may have more nodes than these files do: those of further files."""
        self._around = around
        self._members = members
        self._num_lists = num_lists
        self._list_length = around.num_nodes / num_lists  # in the mean

    def are_few(self, queries: Queries, num_selected: int) -> bool:
        """Whether all selected nodes are scanned, because that costs no more than the near lists would.

        It depends on no query, so queries that are asked together are answered as they are alone.
        """
        copying = _seconds_of_copying(num_selected)
        if copying <= _SECONDS_OF_TRIAL and self._share_of(num_selected) < _WIDE:
            return True  # a trial takes longer, whatever it scans
        near_seconds = self._seconds_of_near(queries, num_selected)
        return min(copying, self._seconds_of_all(num_selected)) <= near_seconds

    def is_scan_cheaper_than_copies(self, num_selected: int) -> bool:
        """Whether all lists are scanned where all selected nodes are, because copying these costs more."""
        return _seconds_of_copying(num_selected) > self._seconds_of_all(num_selected)

    def _seconds_of_near(self, queries: Queries, num_selected: int) -> float:
        """Estimate a search of the lists of a usual query.

        A filter that keeps less than half may be opposed to the query, and all lists are scanned in the end.
        """
        share, least = self._share_of(num_selected), queries.least_near(self._around)
        num_usual = queries.usual_near(self._around)
        if share >= _WIDE:
            num_wide = _num_wide(num_usual, least, share)
            if self._around.effort.scan_candidates:
                return self._seconds_by_codes(num_wide)
            return self._seconds_of_lists(num_wide, share)
        tried = self._seconds_of_lists(max(num_usual, least) / share * 2**VAIN_STEPS, share)
        opposed = self._seconds_of_all(num_selected)
        return _SECONDS_OF_TRIAL + (1 - _OPPOSED_SHARE) * tried + _OPPOSED_SHARE * opposed

    def _seconds_of_lists(self, num_lists: float, share: float) -> float:
        return min(num_lists, self._num_lists) * (
            _SECONDS_OF_RANKING
            + _SECONDS_OF_LIST
            + self._list_length * (SECONDS_OF_ASKING + share * _SECONDS_OF_NODE)
        )

    def _seconds_by_codes(self, num_lists: float) -> float:
        """Estimate a scan of the codes of all nodes in lists, which takes candidates from them."""
        seconds_of_list = _SECONDS_OF_RANKING + _SECONDS_OF_LIST + self._list_length * _SECONDS_OF_CODE
        return _SECONDS_OF_CANDIDATES + min(num_lists, self._num_lists) * seconds_of_list

    def _seconds_of_all(self, num_selected: int) -> float:
        """Estimate a scan of all lists, one after another as they lie in memory."""
        return (
            self._num_lists * _SECONDS_OF_LIST
            + self._around.num_nodes * SECONDS_OF_ASKING
            + num_selected * _SECONDS_OF_NODE
        )

    def rank(
        self,
        queries: Queries,
        selection: Selected | None,
        scan: ScanLists[Any],
        *,
        ranks_all: bool = False,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """Return scores and lists, both (q, n), nearest first, and how many of them are near, (q,).

        Under a filter that does not depend on the query, lists are added until as many selected nodes are met
        as without one. Other filters may select none of what lies nearest. So further lists are tried by
        `scan` until they hold nothing better.
        """
        known = queries.known_counts(self)
        if known is not None:
            num_ranked = self._num_lists if ranks_all else int(known.max())
            return *queries.nearest(self._around.centroids, num_ranked), known
        near = queries.near(self._around)
        num_ranked = self._num_lists if ranks_all else self._num_ranked_first(near, selection)
        while True:
            scores, lists = queries.nearest(self._around.centroids, num_ranked)
            num_near, are_tried = near.counts, np.zeros(len(queries), np.bool_)
            if selection is not None:
                num_selected, are_tried = self._count_selected(queries, near, lists, selection)
                num_near = np.maximum(num_near, num_selected)
            if lists.shape[1] == self._num_lists or num_near.max() < lists.shape[1]:
                break
            num_ranked = min(4 * lists.shape[1], self._num_lists)
        num_near = np.minimum(num_near, self._num_lists)
        if selection is None or not are_tried.any():
            return scores, lists, num_near
        num_near = self._count_tried(queries, num_near, are_tried, selection, scan)
        return *queries.nearest(self._around.centroids, int(num_near.max())), num_near

    def _count_tried(
        self,
        queries: Queries,
        num_first: NDArray[np.int64],
        are_tried: NDArray[np.bool_],
        selection: Selected,
        scan: ScanLists[Any],
    ) -> NDArray[np.int64]:
        """Return how many lists are near, (q,), beginning with the first ones of each query that is tried."""
        num_best = min(NUM_SETTLED, self._around.num_nodes)

        def best_scores(query: int, ranks: slice) -> NDArray[np.float32]:
            num_ranked = min(ranks.stop, self._num_lists)
            _, lists = queries.nearest(self._around.centroids, num_ranked)
            probed = np.sort(lists[query, ranks])[None]
            best: NDArray[np.float32] = scan(queries.one(query), num_best, probed, selection)[0][0]
            return best[:num_best]

        counts: NDArray[np.int64] = num_first.copy()
        for query in np.flatnonzero(are_tried).tolist():
            counts[query] = count_until_settled(
                partial(best_scores, query), int(counts[query]), self._num_lists
            )
        queries.know_counts(self, counts)
        return counts

    def _num_ranked_first(self, near: NearLists, selection: Selected | None) -> int:
        num_ranked = int(near.lists.shape[1]) + 1
        if selection is not None:
            share = self._share_of(selection.num_nodes)
            num_ranked = int(_num_wide(num_ranked, num_ranked, share)) + 1
        return min(num_ranked, self._num_lists)

    def _share_of(self, num_selected: int) -> float:
        return max(1, num_selected) / self._around.num_nodes

    def _share_here(self, selection: Selected) -> float:
        """Return the share of these files' nodes, which is greater if `around` has further ones."""
        return max(1, selection.num_nodes) / self._members.num_nodes

    def _meet(self, lists: NDArray[np.int64], selection: Selected) -> _Met:
        """Count what each query's lists, (q, n), hold."""
        selected, lengths = selection.count_in(lists), self._members.lengths[lists]
        return _Met(selected.cumsum(axis=1), lengths.cumsum(axis=1))

    def _count_selected(
        self, queries: Queries, near: NearLists, lists: NDArray[np.int64], selection: Selected
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return how many lists hold enough selected nodes, and whether further ones are tried, both (q,).

        The first is more than all if too few are ranked.
        """
        share, least = self._share_of(selection.num_nodes), queries.least_near(self._around)
        met = self._meet(lists, selection)
        are_opposed = self._are_opposed(near.counts, met, selection)
        if share < _WIDE:
            num_first = self._count_first(near.counts, least, met, are_opposed, share)
            return num_first, np.ones(len(queries), np.bool_)
        num_wide = np.array([int(_num_wide(num, least, share)) + 1 for num in near.counts.tolist()])
        are_independent = self._are_independent(num_wide, met, selection) & ~are_opposed
        if are_independent.all():
            return num_wide, ~are_independent
        num_first = self._count_first(near.counts, least, met, are_opposed, share)
        return np.where(are_independent, num_wide, num_first), ~are_independent

    def _count_first(
        self,
        num_near: NDArray[np.int64],
        least: int,
        met: _Met,
        are_opposed: NDArray[np.bool_],
        share: float,
    ) -> NDArray[np.int64]:
        """Return how many lists are scanned before further ones are tried, (q,)."""
        num_base = np.maximum(num_near, np.where(are_opposed, _OPPOSED_BASE, 1) * least)
        thoroughness = np.where(are_opposed, min(_OPPOSED_BASE, 1 / share), 1)
        num_wanted = num_base * thoroughness * self._list_length
        num_first: NDArray[np.int64] = (met.num_selected < num_wanted[:, None]).sum(axis=1) + 1
        return num_first

    def _are_opposed(self, num_near: NDArray[np.int64], met: _Met, selection: Selected) -> NDArray[np.bool_]:
        """Whether the lists that each query scans without a filter have lost much, the nearest ones or all.

        Of few nodes a binomial's spread is skewed. The roots of its counts are not (Anscombe 1948).
        """
        num_first = np.stack([np.ones_like(num_near), -(-num_near // _NEAREST_PART), num_near], axis=1)
        num_selected, num_all = met.in_first(num_first)
        share = self._share_here(selection)
        num_least = (1 - _EMPTIED) * share * num_all
        deviations = 2 * (np.sqrt(num_selected + 3 / 8) - np.sqrt(num_least + 3 / 8))
        are_opposed: NDArray[np.bool_] = (deviations < -_DEVIATIONS * np.sqrt(1 - share)).any(axis=1)
        return are_opposed

    def _are_independent(
        self, num_near: NDArray[np.int64], met: _Met, selection: Selected
    ) -> NDArray[np.bool_]:
        """Whether the selection leaves out hardly more of each query's first lists, (q,), than of all."""
        num_selected, num_all = (counts[:, 0] for counts in met.in_first(num_near[:, None]))
        share = self._share_here(selection)
        num_expected = (1 - share) * num_all
        by_chance = _DEVIATIONS * np.sqrt(share * num_expected)
        are_independent: NDArray[np.bool_] = (
            num_all - num_selected <= _MORE_LEFT_OUT * num_expected + by_chance
        )
        return are_independent


class _Met(NamedTuple):
    """How many selected nodes, and how many in all, the first lists of each query hold, both (q, n)."""

    num_selected: NDArray[np.int64]
    num_all: NDArray[np.int64]

    def in_first(self, num_lists: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return both counts for some numbers of lists of each query, (q, n)."""
        last = np.minimum(num_lists, self.num_all.shape[1]) - 1
        of_query = np.arange(len(last))[:, None]
        return self.num_selected[of_query, last], self.num_all[of_query, last]


def _seconds_of_copying(num_selected: int) -> float:
    """Estimate a scan of copies of the selected nodes."""
    return num_selected * SECONDS_OF_COPIED_NODE


def _num_wide(num_near: int, least: int, share: float) -> float:
    """Return how many lists are near under a wide selection that does not depend on the query.

    They hold as many selected nodes as `num_near` lists hold nodes, and as `least` lists do.
    """
    margin = min(_WIDE_MARGIN, _MARGIN_OF_LEFT_OUT * (1 - share))
    return (1 + margin) * max(num_near, least / share) / share
