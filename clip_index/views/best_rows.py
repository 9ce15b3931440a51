"""The best rows of a segment or a tail, cut at k by the one order of answers: score, then content id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from clip_index.vectors.lists.stacked_lists import StackedLists
from clip_index.vectors.node_rows import NodeRows
from clip_index.vectors.queries import MIN_DEPTH, Found, Queries, Reach
from clip_index.vectors.stacked_rows import StackedRows
from clip_index.vectors.vectors import NodeSelection, Vectors, clip_scores, use_one_thread
from clip_index.views.eligible import Eligible, FewRows


@dataclass(frozen=True, slots=True)
class RowScores:
    """The best live rows of one query: scores (n,) float32, best first, and rows (n,)."""

    scores: NDArray[np.float32]
    rows: NDArray[np.int64]

    def at(self, positions: NDArray[np.int64] | NDArray[np.bool_] | slice) -> RowScores:
        return RowScores(self.scores[positions], self.rows[positions])


NO_ROWS = RowScores(np.empty(0, np.float32), np.empty(0, np.int64))

_NODES_OF_ROW = 4  # where texts have several windows: a lesser window that is met leads to the best one

_MORE_NODES = 1.1  # than are needed where dead rows are spread evenly


@dataclass(frozen=True, slots=True)
class Thinned:
    """Dead rows of a stack: how many lists are near to each query, (q,), and which rows, (n,), are alive."""

    num_near: NDArray[np.int64]
    live_share: float
    are_live: Callable[[NDArray[np.int64]], NDArray[np.bool_]]


IdsOfRows: TypeAlias = Callable[[NDArray[np.int64]], pa.Array]
"""Content ids, (n,) strings, of rows, (n,)."""


def find_best_rows(
    vectors: Vectors,
    node_rows: NodeRows,
    queries: Queries,
    k: int,
    *,
    eligible: Eligible,
    reach: Reach,
    ids_of_rows: IdsOfRows,
) -> list[RowScores]:
    """Return up to k distinct eligible rows of each query, exactly k while that many are within reach.

    Whoever asks for fewer gets the first of the same rows: rows with one score are ordered by
    content id here too, where FAISS's order of nodes and the order of arrival mean nothing.
    """
    num_asked = _num_asked_first(vectors, node_rows, queries, k, eligible.nodes)

    def search(num_nodes: int) -> Found:
        return vectors.search(queries, num_nodes, eligible.nodes, reach)

    def expand(scores: NDArray[np.float32], nodes: NDArray[np.int64]) -> RowScores:
        return _expand(scores, nodes, node_rows, eligible)

    found = _find_settled(search, expand, k, num_asked, vectors.num_nodes)
    if not node_rows.has_distinct_rows:
        windows = _Windows(vectors, node_rows, queries, eligible.nodes)
        found = [windows.complete(rows, query, reach) for query, rows in enumerate(found)]
    return [_cut(rows, k, ids_of_rows) for rows in found]


def find_best_distinct_rows(
    lists: StackedLists,
    node_rows: StackedRows,
    queries: Queries,
    k: int,
    ids_of_rows: IdsOfRows,
    thinned: Thinned | None = None,
) -> list[RowScores]:
    """Return what `find_best_rows` does, from the near lists of a stack, which may have dead rows."""
    near, num_asked = None, k + 1
    if thinned is not None:
        near = queries.first_lists(lists.around, thinned.num_near)
        num_asked = int(_MORE_NODES * num_asked / thinned.live_share) + 1

    def search(num_nodes: int) -> Found:
        return lists.search(queries, num_nodes, near)

    def expand(scores: NDArray[np.float32], labels: NDArray[np.int64]) -> RowScores:
        scores, labels = _without_none(scores, labels)
        positions, rows = node_rows.rows_of(*lists.find(labels))
        found = RowScores(scores if positions is None else scores[positions], rows)
        return found if thinned is None else found.at(thinned.are_live(rows))

    found = _find_settled(search, expand, k, num_asked, lists.num_nodes)
    return [_cut(rows, k, ids_of_rows) for rows in found]


def find_best_few_rows(
    parts: Sequence[tuple[int, FewRows]], queries: Queries, k: int, ids_of_rows: IdsOfRows
) -> list[RowScores]:
    """Return the k best of the few rows of many files, which are scanned in one call.

    `parts` are the number of each file's first row, and its rows; their codes are of one kind.
    """
    rows = np.concatenate([few.rows + first for first, few in parts])
    if not len(rows):
        return [NO_ROWS] * len(queries)
    addresses, codes = np.concatenate([few.addresses for _, few in parts]), parts[0][1].codes

    def search(num_nodes: int) -> Found:
        return clip_scores(codes.search(queries, num_nodes, addresses))

    def expand(scores: NDArray[np.float32], numbers: NDArray[np.int64]) -> RowScores:
        scores, numbers = _without_none(scores, numbers)
        return RowScores(scores, rows[numbers])

    use_one_thread()
    found = _find_settled(search, expand, k, k + 1, len(rows))
    return [_cut(one, k, ids_of_rows) for one in found]


def _find_settled(
    search: Callable[[int], Found],
    expand: Callable[[NDArray[np.float32], NDArray[np.int64]], RowScores],
    k: int,
    num_asked: int,
    num_all: int,
) -> list[RowScores]:
    """Ask for more nodes until those that are left out score less than the k-th row of each query."""
    while True:
        num_asked = min(num_asked, num_all)
        scores, nodes = search(num_asked)
        found = [expand(*of_query) for of_query in zip(scores, nodes, strict=True)]
        are_settled = [
            nodes[q, -1] < 0 or (len(rows.rows) >= k and scores[q, -1] < rows.scores[k - 1])
            for q, rows in enumerate(found)
        ]
        if num_asked == num_all or all(are_settled):
            return found
        num_asked *= 2  # several windows of a text, or equal scores


def _without_none(
    scores: NDArray[np.float32], nodes: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Leave out the −1 that stand for nodes that were not found."""
    if nodes[-1] >= 0:
        return scores, nodes
    return scores[nodes >= 0], nodes[nodes >= 0]


def _num_asked_first(
    vectors: Vectors, node_rows: NodeRows, queries: Queries, k: int, selection: NodeSelection | None
) -> int:
    """Ask for one node more than rows, which shows whether equal scores were cut.

    Where texts have several windows and some lists are not scanned, a lesser window leads to a text's
    best one. So the nodes that are asked for must not depend on k, and in pages they are all that are near.
    """
    if node_rows.has_distinct_rows or not vectors.has_rest:
        return k + 1
    if queries.is_paged:
        return max(k + 1, vectors.count_near(queries, selection))
    return _NODES_OF_ROW * max(k, MIN_DEPTH)


def _expand(
    scores: NDArray[np.float32],
    nodes: NDArray[np.int64],
    node_rows: NodeRows,
    eligible: Eligible,
) -> RowScores:
    """Turn nodes into rows: several for identical contents, one for several windows of a text."""
    scores, nodes = _without_none(scores, nodes)
    positions, rows = node_rows.rows_of(nodes)
    if positions is not None:  # else each is the only row of a node that was selected for it
        scores = scores[positions]
        is_kept = eligible.are_rows(rows)
        if is_kept is not None:
            scores, rows = scores[is_kept], rows[is_kept]
    if not node_rows.has_distinct_rows:
        first = np.sort(np.unique(rows, return_index=True)[1])  # a text's best window comes first
        scores, rows = scores[first], rows[first]
    return RowScores(scores, rows)


class _Windows:
    """Texts of several windows, of which a search of some lists may have met a lesser one only."""

    def __init__(
        self, vectors: Vectors, node_rows: NodeRows, queries: Queries, selection: NodeSelection | None
    ) -> None:
        self._vectors = vectors
        self._node_rows = node_rows
        self._queries = queries
        self._selection = selection

    def complete(self, found: RowScores, query: int, reach: Reach) -> RowScores:
        """Score a near row by its best window, wherever that lies; leave near rows out of the rest.

        A search of all nodes has met the best window of each row already.
        """
        if reach is Reach.ALL:
            return found
        positions, nodes = self._node_rows.windows_of(found.rows)
        if not len(nodes):
            return found
        are_near = self._vectors.are_near(self._queries, query, nodes, self._selection)
        if reach is Reach.REST:
            is_rest = np.ones(len(found.rows), np.bool_)
            is_rest[positions[are_near]] = False
            return found.at(is_rest)
        return self._raise_scores(found, query, positions[~are_near], nodes[~are_near])

    def _raise_scores(
        self, found: RowScores, query: int, positions: NDArray[np.int64], nodes: NDArray[np.int64]
    ) -> RowScores:
        if not len(nodes):
            return found
        embeddings = self._vectors.embeddings_of(nodes)
        scores = found.scores.copy()
        np.maximum.at(scores, positions, np.clip(embeddings @ self._queries.embeddings[query], -1, 1))
        order = np.argsort(-scores, kind="stable")
        return RowScores(scores[order], found.rows[order])


def _cut(found: RowScores, k: int, ids_of_rows: IdsOfRows) -> RowScores:
    """Keep the k best; of those that score as the last of them the ones with the smallest content ids."""
    if len(found.rows) <= k:
        return found
    last = found.scores[k - 1]
    if found.scores[k] < last:
        return found.at(slice(k))
    descending = -found.scores
    num_better = int(np.searchsorted(descending, -last, side="left"))
    num_at_least = int(np.searchsorted(descending, -last, side="right"))
    ids = ids_of_rows(found.rows[num_better:num_at_least])
    chosen = pc.select_k_unstable(ids, k=k - num_better, sort_keys=[("", "ascending")])
    positions = np.concatenate([np.arange(num_better), num_better + np.asarray(chosen, np.int64)])
    return found.at(positions)
