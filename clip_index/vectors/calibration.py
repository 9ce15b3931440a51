"""How many lists a query must scan, measured on a segment's own embeddings.

A query scans the lists in which all but a small share of its best embeddings are expected
(`clip_index/vectors/near_lists/spread.py`). How small the share must be depends on the data, and is measured
when the lists are built, with several kinds of queries. On 100,000 embeddings with a power-law spectrum
in four shards, recall@10 of 0.99 needed a share of 0.006 to 0.010, and of 0.002 to 0.006 for queries that are
far from everything.

Where the spread is not known, a query scans all lists whose centroid scores within a gap of its nearest one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.vectors.calibration_queries import NUM_BEST, SEED, AskedKind, find_best, kinds_of_queries
from clip_index.vectors.lists.codebook import Codebook
from clip_index.vectors.near_lists.effort import Effort
from clip_index.vectors.near_lists.rule import NearRule
from clip_index.vectors.near_lists.spread import Spread, count_lists, expect_best

TARGET_RECALL = 0.99
"""Mean share of a query's ten best contents that a search of one segment finds."""

_SHARES_OF_USUAL = 0.95, 0.9, 0.75, 0.5
"""A query that needs more lists than such a share of the usual ones is taken to be far from everything."""
_STRICTER = 1, 1 / 2, 1 / 4
"""What such a query leaves out, times what all of them might. Some are not told from usual ones."""
_SLACK = 5e-4
"""The recall of queries that are ranked in part, or scan few lists by the gap, differs by less."""
_NUM_CODES = 4096
_CODE_MARGIN = 1.25
_MARGIN = 1 / 3
"""Of the misses that the target allows, because the sample is not the traffic. A query takes the mean gap of
all shards, each of which has a sample of its own. So the margin shrinks as the error of a mean does."""
_TOLD_BY = 1 - 1 / 1_000
_BEYOND = 3.99 / 3.09
"""Scores by codes are too low by more than the measured error with a chance of 1 / 30,000, if their errors
are distributed as normal ones from 1 / 1,000 on, as they exceed 3.09 and 3.99 deviations. The former quantile
itself would be that of one or two odd nodes, which are off for all queries: among 16,384 nodes of 240,000
in 256 clusters, one shard had some, and its error was 6.3; in others it was 4.2. Whoever asks for such
a node resembles it, and searches see to that."""
_LEAST_DEVIATION = 1e-6  # where codes lose nothing
_NUM_SCANNED = 16_384  # nodes whose codes are looked at
_NUM_SCANNING = 64  # queries of each kind


def calibrate(
    nodes: NDArray[np.float16],
    centroids: Embeddings,
    list_of_node: NDArray[np.int64],
    *,
    others: NDArray[np.float16] | None = None,
    target_recall: float = TARGET_RECALL,
    num_shards: int = 1,
    codebook: Codebook | None = None,
    spread: Spread | None = None,
) -> Effort:
    """Return the smallest effort that reaches the target for every kind of query.

    Contents are spread over the shards by a hash of their ids. So of the ten best of an index with
    `num_shards`, a segment's best one is the likeliest to be among them, and its tenth the least.

    `nodes` (n, dimension) are the segment's embeddings of one modality. Those that are held out of the
    training stand for queries of that modality: a centroid lies nearer to what trained it than to
    a query, so the others would ask for more. `others` are embeddings of the other modality: a
    text's embedding is the best example there is of a text that asks for pictures. A kind of its own
    are random directions, which are far from everything. With a `codebook`, what scans of its codes need
    is measured too, and with the `spread` which share of the best may be left out.
    """
    kinds = kinds_of_queries(nodes, others, target_recall)
    asked = [
        _Asked(kind, kind.queries @ centroids.T, find_best(kind.queries, nodes, kind.own)) for kind in kinds
    ]
    weights, margin = _rank_weights(num_shards), _MARGIN / np.sqrt(num_shards)
    gaps = [one.scores.max(axis=1, keepdims=True) - one.scores for one in asked]
    gap = max(
        one.least_that_finds(list_of_node, costs, weights, margin)
        for one, costs in zip(asked, gaps, strict=True)
    )
    rule = NearRule(Effort(gap, 0), spread, len(centroids), num_shards * len(nodes))
    if spread is not None:
        rule = replace(rule, effort=_measure_left_out(rule, spread, asked, list_of_node, weights, margin))
    effort, are_near = rule.effort, [one.are_near(rule) for one in asked]
    counts = np.concatenate(
        [near.sum(axis=1) for one, near in zip(asked, are_near, strict=True) if not one.kind.is_rare]
    )
    effort = replace(effort, usual_lists=int(np.quantile(counts, 0.9)) + 1)
    if codebook is None:
        return effort
    last = max(1, round(NUM_BEST / num_shards)) - 1  # as many of the ten best lie in this segment
    scanned = []
    for one, near in zip(asked, are_near, strict=True):
        some = slice(None, None, -(-len(near) // _NUM_SCANNING))
        their_last = nodes[one.best[some, min(last, one.best.shape[1] - 1)]]
        scanned.append(_Scanned(one.kind.queries[some], their_last, near[some], one.kind.is_rare))
    return _measure_scans(effort, nodes, centroids, list_of_node, codebook, scanned)


def _measure_left_out(
    rule: NearRule,
    spread: Spread,
    asked: list[_Asked],
    lists: NDArray[np.int64],
    weights: NDArray[np.float64],
    margin: float,
) -> Effort:
    """Return the effort of a rule with the shares of the best that queries may leave out.

    The last kind asked is far from everything. Its queries are told by the many lists that they need. Some
    may need no more than usual queries do, and leave out too much. Then the others leave out less, or fewer
    queries count as usual, so that all kinds reach their targets; or nearly, if it takes more than that.
    """
    expected = [_Expected(one, spread, int(rule.num_nodes)) for one in asked]
    needed = [
        max(0.0, 1 - one.least_that_finds(lists, of_kind.before, weights, margin))
        for one, of_kind in zip(asked, expected, strict=True)
    ]
    left_out = min(needed[:-1])
    usual = np.concatenate([of_kind.count_lists(left_out) for of_kind in expected[:-1]])
    for share, stricter in product(_SHARES_OF_USUAL, _STRICTER):
        effort = replace(
            rule.effort,
            left_out=left_out,
            least_left_out=stricter * min(needed),
            most_lists=int(np.quantile(usual, share)) + 1,
        )
        tried = replace(rule, effort=effort)
        if all(one.is_found(lists, one.are_near(tried), weights, margin) for one in asked):
            return effort
    most_lists = int(np.quantile(usual, _SHARES_OF_USUAL[0])) + 1
    return replace(effort, left_out=left_out / 2, most_lists=most_lists)


class _Asked(NamedTuple):
    """A kind of queries with their scores with the centroids, (q, lists), and their best nodes, (q, 10)."""

    kind: AskedKind
    scores: NDArray[np.float32]
    best: NDArray[np.int64]

    def least_that_finds(
        self,
        lists: NDArray[np.int64],
        costs: NDArray[np.float32],
        weights: NDArray[np.float64],
        margin: float,
    ) -> float:
        """Return the least cost at which lists hold a share of the best nodes, the target with a margin.

        `costs`, (q, lists), are those at which each list is scanned. The best nodes, which lie in `lists`,
        (nodes,), count by the `weights` of their ranks.

        The best one of the ten lies nearer its centroid than the others: on 40,000 rows with a power-law
        spectrum, a gap that found 0.9925 of the ten found 0.9967 of the best.
        """
        of_best = np.take_along_axis(costs, lists[self.best], axis=1)
        order = np.argsort(of_best, axis=None)
        within = np.cumsum(self._weigh(weights).ravel()[order])
        least = self._with_margin(margin) * within[-1]
        return float(of_best.ravel()[order[np.searchsorted(within, least)]])

    def is_found(
        self,
        lists: NDArray[np.int64],
        are_near: NDArray[np.bool_],
        weights: NDArray[np.float64],
        margin: float,
    ) -> bool:
        """Whether the lists that queries scan, (q, lists), hold the share of the best nodes."""
        are_found = np.take_along_axis(are_near, lists[self.best], axis=1)
        recall = np.average(are_found, weights=self._weigh(weights))
        return bool(recall >= self._with_margin(margin) - _SLACK)

    def _weigh(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.broadcast_to(weights[: self.best.shape[1]], self.best.shape)

    def _with_margin(self, margin: float) -> float:
        return 1 - (1 - self.kind.target) * (1 - margin)

    def are_near(self, rule: NearRule) -> NDArray[np.bool_]:
        """Return which lists each query scans, (q, lists)."""
        order = np.argsort(-self.scores, axis=1, kind="stable")
        ranked = np.take_along_axis(self.scores, order, 1)
        counts = [
            rule.count(scores, partial(Spread.deviation, query=query)) or rule.num_lists
            for query, scores in zip(self.kind.queries, ranked, strict=True)
        ]
        are_near: NDArray[np.bool_] = np.argsort(order, axis=1) < np.array(counts)[:, None]
        return are_near


class _Expected:
    """Where the best nodes of one kind of queries are expected."""

    def __init__(self, asked: _Asked, spread: Spread, num_nodes: int) -> None:
        order = np.argsort(-asked.scores, axis=1, kind="stable")
        ranked = np.take_along_axis(asked.scores, order, 1)
        deviations = np.array([spread.deviation(query) for query in asked.kind.queries], np.float32)
        gaps = (ranked[:, :1] - ranked) / deviations[:, None]
        self._expected = np.array([expect_best(row, len(row), num_nodes) for row in gaps])
        before = self._expected / self._expected[:, -1:]
        before[:, 1:] = before[:, :-1].copy()
        before[:, 0] = 0
        self.before = np.take_along_axis(before, np.argsort(order, axis=1), 1)
        """The share that is expected in the lists nearer than each, (q, lists)."""

    def count_lists(self, left_out: float) -> list[int]:
        """Return how many lists each query scans to leave out a share of its best."""
        return [count_lists(row, left_out) for row in self._expected]


class _Scanned(NamedTuple):
    """Queries, (q, dimension), the last node that each should find, and the lists it scans, (q, lists)."""

    queries: Embeddings
    last: NDArray[np.float16]
    are_near: NDArray[np.bool_]
    are_rare: bool


def _measure_scans(
    effort: Effort,
    nodes: NDArray[np.float16],
    centroids: Embeddings,
    list_of_node: NDArray[np.int64],
    codebook: Codebook,
    scanned: list[_Scanned],
) -> Effort:
    """Measure how far scores by codes are off, and how many candidates must be taken because of that.

    A candidate is what scores by its code as much as the last node that a query should find, less the error.
    Sums and queries far from everything are rare: some of these ask a second time.

    The error follows from a quantile, in deviations that the codebook tells for each query. Four of them
    would be too few where some lists are far tighter than others: there they left out 1.8 % of the ten best.
    Nodes that score better than the usual last one do not count. They resemble a query so closely, as it does
    itself, that their scores are much lower by codes. Searches see to these.
    """
    chosen = np.sort(_draw(len(nodes), _NUM_SCANNED))
    lists, embeddings = list_of_node[chosen], nodes[chosen].astype(np.float32)
    differences = embeddings - centroids[lists]
    lost = differences - codebook.decode(differences)
    measured = []
    for queries, last, *_ in scanned:
        scores, off = queries @ embeddings.T, queries @ lost.T
        least = np.einsum("qd,qd->q", queries, last.astype(np.float32))
        usual = np.maximum(codebook.code_queries(codebook.along(queries)).deviations, _LEAST_DEVIATION)
        too_low = np.where(scores <= np.median(least), off / usual[:, None], 0)
        measured.append((scores - off, least, usual, _BEYOND * float(np.quantile(too_low, _TOLD_BY))))
    # The greatest of many kinds' errors would be greater by chance. Sums are off as what they are made of is.
    errors = [error for *_, error in measured]
    deviations = max(
        *(error for one, error in zip(scanned, errors, strict=True) if not one.are_rare), errors[-1]
    )
    counts = []
    for one, (by_codes, least, usual, _) in zip(scanned, measured, strict=True):
        if one.are_rare:
            continue
        are_candidates = one.are_near[:, lists] & (by_codes >= (least - deviations * usual)[:, None])
        counts.append(are_candidates.sum(axis=1) * (len(nodes) / len(chosen)))
    return replace(
        effort, scan_deviations=deviations, scan_candidates=int(np.quantile(np.concatenate(counts), 0.9)) + 1
    )


def _draw(num: int, num_drawn: int) -> NDArray[np.int64]:
    return np.random.default_rng(SEED).choice(num, min(num_drawn, num), replace=False)


def measure_code_error(
    nodes: NDArray[np.float16],
    others: NDArray[np.float16] | None,
    decoded: Callable[[Embeddings], Embeddings],
) -> float:
    """Return how far the scores by quantised embeddings are off at most, with a margin.

    It is measured with the queries that `calibrate` asks. The errors of a score are sums over all dimensions,
    so they are spread as a normal distribution is. Of millions, the greatest is five to six deviations.
    `decoded` returns embeddings as their codes give them back.
    """
    embeddings = nodes[np.sort(_draw(len(nodes), _NUM_CODES))].astype(np.float32)
    lost = embeddings - decoded(embeddings)
    queries = np.concatenate([kind.queries for kind in kinds_of_queries(nodes, others, TARGET_RECALL)])
    return float(np.abs(queries @ lost.T).max()) * _CODE_MARGIN


def _rank_weights(num_shards: int) -> NDArray[np.float64]:
    """Return how likely the best, second, … tenth of one shard is among the ten best of all, (10,).

    It is the chance that at least so many of ten contents fall into the shard.
    """
    share = 1 / num_shards
    chances = [comb(NUM_BEST, n) * share**n * (1 - share) ** (NUM_BEST - n) for n in range(NUM_BEST + 1)]
    return np.cumsum(chances[::-1])[::-1][1:]
