"""How many lists a query must scan, measured on a segment's own embeddings.

A query ranks the centroids. Where one of them is clearly the nearest, few lists hold the best
embeddings; where many are about as near, the best embeddings are spread over many lists. So a
query scans the lists whose centroid scores within `gap` of its nearest centroid. How wide the
gap must be depends on the data, and is measured when the lists are built.

Measured on 25,000 and 60,000 rows of 512 dimensions, recall@10 of 0.99 needed about the same gap
whether the queries came from the same modality, from the other one or were sums of two: 0.10 on
embeddings with a power-law spectrum (120 to 160 lists of 632), 0.02 to 0.03 on clustered ones (5
lists). A fixed number of lists would have to be the largest of these for every query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import comb
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings
from clip_index.vectors.effort import Effort
from clip_index.vectors.lists.codebook import Codebook

TARGET_RECALL = 0.99
"""Mean share of a query's ten best contents that a search of one segment finds."""

_FAR_TARGET = 0.985  # for queries that are far from everything, whose ranking is nearly arbitrary
_K = 10
_NUM_QUERIES = 512
_NUM_FAR_QUERIES = 128
_NUM_CODES = 4096
_CODE_MARGIN = 1.25
_MARGIN = 1 / 3
"""Of the misses that the target allows, because the sample is not the traffic. A query takes the mean gap of
all shards, each of which has a sample of its own. So the margin shrinks as the error of a mean does."""
_BLOCK = 16384
_SEED = 4321
_HELD_OUT_PART = 8
_ASKED_PART = 12  # so few that they are all held out, although by chance fewer than an eighth may be
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # of splitmix64

_SURE_OF_SCAN = 1 - 1 / 30_000
"""The share of scores by codes that are too low by less than the measured error."""
_LEAST_DEVIATION = 1e-6  # where codes lose nothing
_NUM_SCANNED = 16_384  # nodes whose codes are looked at
_NUM_SCANNING = 64  # queries of each kind

_Kind: TypeAlias = tuple[Embeddings, "NDArray[np.int64] | None", float]
"""Queries (q, dimension), the nodes that they are themselves, and the recall that they should reach."""


def hold_out(embeddings: NDArray[np.float16]) -> NDArray[np.int64]:
    """Return the embeddings that calibration asks with, (n,); no training may see them.

    The embeddings themselves decide it. So an embedding that one merge asks with was kept from the
    training of a set of centroids in an earlier merge, or in another shard's.
    """
    num_asked = min(_NUM_QUERIES, len(embeddings) // _ASKED_PART + 1)
    return np.argpartition(_lots(embeddings), num_asked - 1)[:num_asked]


def may_train(embeddings: NDArray[np.float16]) -> NDArray[np.bool_]:
    """Return which embeddings training may see, (n,). Of 1,000 and more, those that are held out are not."""
    may: NDArray[np.bool_] = _lots(embeddings) >= np.uint64(2**64 // _HELD_OUT_PART)
    return may


def _lots(embeddings: NDArray[np.float16]) -> NDArray[np.uint64]:
    """Return a number for each embedding that depends on its bits alone, evenly from 0 to 2^64."""
    factors = np.random.default_rng(_SEED).integers(2**64, size=embeddings.shape[1], dtype=np.uint64)
    lots = np.empty(len(embeddings), np.uint64)
    for first in range(0, len(embeddings), _BLOCK):
        block = np.ascontiguousarray(embeddings[first : first + _BLOCK]).view(np.uint16).astype(np.uint64)
        lots[first : first + _BLOCK] = block @ factors
    mixed: NDArray[np.uint64] = (lots ^ (lots >> np.uint64(29))) * _MIX
    return mixed


def calibrate(
    nodes: NDArray[np.float16],
    centroids: Embeddings,
    list_of_node: NDArray[np.int64],
    *,
    others: NDArray[np.float16] | None = None,
    target_recall: float = TARGET_RECALL,
    num_shards: int = 1,
    codebook: Codebook | None = None,
) -> Effort:
    """Return the smallest effort that reaches the target for every kind of query.

    Contents are spread over the shards by a hash of their ids. So of the ten best of an index with
    `num_shards`, a segment's best one is the likeliest to be among them, and its tenth the least.

    `nodes` (n, dimension) are the segment's embeddings of one modality. Those that are held out of the
    training stand for queries of that modality: a centroid lies nearer to what trained it than to
    a query, so the others would ask for wider gaps. `others` are embeddings of the other modality: a
    text's embedding is the best example there is of a text that asks for pictures. A kind of its own
    are random directions, which are far from everything. With a `codebook`, what scans of its codes need
    is measured too.
    """
    kinds = _kinds_of_queries(nodes, others, target_recall)
    weights, margin = _rank_weights(num_shards), _MARGIN / np.sqrt(num_shards)
    best = [_find_best(queries, nodes, own) for queries, own, _ in kinds]
    of_centroids = [queries @ centroids.T for queries, _, _ in kinds]
    needed = [
        _needed_gap(scores, list_of_node[found], weights, 1 - (1 - target) * (1 - margin))
        for scores, found, (_, _, target) in zip(of_centroids, best, kinds, strict=True)
    ]
    gap = max(needed)
    counts = [_are_near(gap, scores).sum(axis=1) for scores in of_centroids[:-1]]
    effort = Effort(gap, int(np.quantile(np.concatenate(counts), 0.9)) + 1)
    if codebook is None:
        return effort
    last = max(1, round(_K / num_shards)) - 1  # as many of the ten best lie in this segment
    asked = [
        (queries[:_NUM_SCANNING], nodes[found[:_NUM_SCANNING, min(last, found.shape[1] - 1)]])
        for (queries, _, _), found in zip(kinds, best, strict=True)
    ]
    return _measure_scans(effort, nodes, centroids, list_of_node, codebook, asked)


def _measure_scans(
    effort: Effort,
    nodes: NDArray[np.float16],
    centroids: Embeddings,
    list_of_node: NDArray[np.int64],
    codebook: Codebook,
    asked: list[tuple[Embeddings, NDArray[np.float16]]],
) -> Effort:
    """Measure how far scores by codes are off, and how many candidates must be taken because of that.

    `asked` are queries of each kind, (q, dimension), each with the last node that it should find. A candidate
    is what scores by its code as much as that node, less the error. The last kind is rare.

    The error is a quantile, in deviations that the codebook tells for each query. A number of them as of a
    normal distribution would be too few where some lists are far tighter than others: there four left out
    1.8 % of the ten best. Nodes that score better than the usual last one do not count. They resemble a query
    so closely, as it does itself, that their scores are much lower by codes. Searches see to these.
    """
    chosen = np.sort(_draw(len(nodes), _NUM_SCANNED))
    lists, embeddings = list_of_node[chosen], nodes[chosen].astype(np.float32)
    differences = embeddings - centroids[lists]
    lost = differences - codebook.decode(differences)
    measured = []
    for queries, last in asked:
        scores, off = queries @ embeddings.T, queries @ lost.T
        least = np.einsum("qd,qd->q", queries, last.astype(np.float32))
        usual = np.maximum(codebook.code_queries(queries).deviations, _LEAST_DEVIATION)
        too_low = np.where(scores <= np.median(least), off / usual[:, None], 0)
        measured.append((scores - off, least, usual, float(np.quantile(too_low, _SURE_OF_SCAN))))
    deviations = max(error for _, _, _, error in measured)
    counts = []
    for (queries, _), (by_codes, least, usual, _) in zip(asked[:-1] or asked, measured, strict=False):
        are_near = _are_near(effort.gap, queries @ centroids.T)[:, lists]
        are_candidates = are_near & (by_codes >= (least - deviations * usual)[:, None])
        counts.append(are_candidates.sum(axis=1) * (len(nodes) / len(chosen)))
    return replace(
        effort, scan_deviations=deviations, scan_candidates=int(np.quantile(np.concatenate(counts), 0.9)) + 1
    )


def _draw(num: int, num_drawn: int) -> NDArray[np.int64]:
    return np.random.default_rng(_SEED).choice(num, min(num_drawn, num), replace=False)


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
    queries = np.concatenate([queries for queries, _, _ in _kinds_of_queries(nodes, others, TARGET_RECALL)])
    return float(np.abs(queries @ lost.T).max()) * _CODE_MARGIN


def _kinds_of_queries(
    nodes: NDArray[np.float16], others: NDArray[np.float16] | None, target_recall: float
) -> list[_Kind]:
    own = hold_out(nodes)
    kinds: list[_Kind] = [(nodes[own].astype(np.float32), own, target_recall)]
    if others is not None and len(others):
        kinds.append((others[hold_out(others)].astype(np.float32), None, target_recall))
    far = np.random.default_rng(_SEED).standard_normal((_NUM_FAR_QUERIES, nodes.shape[1]))
    far /= np.linalg.norm(far, axis=1, keepdims=True)
    kinds.append((far.astype(np.float32), None, min(_FAR_TARGET, target_recall)))
    return kinds


def _find_best(
    queries: Embeddings, nodes: NDArray[np.float16], own: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """Return the ten best nodes of each query, (q, 10), best first, by a scan; without the query itself."""
    scores = np.empty((len(queries), 0), np.float32)
    best = np.empty((len(queries), 0), np.int64)
    for first, block in _blocks(nodes):
        found = queries @ block.T
        if own is not None:
            is_own = (own >= first) & (own < first + len(block))
            found[np.flatnonzero(is_own), own[is_own] - first] = -np.inf
        scores = np.concatenate([scores, found], axis=1)
        best = np.concatenate([best, np.broadcast_to(np.arange(first, first + len(block)), found.shape)], 1)
        order = np.argpartition(-scores, min(_K, scores.shape[1]) - 1, axis=1)[:, :_K]
        scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
    return np.take_along_axis(best, np.argsort(-scores, axis=1, kind="stable"), 1)


def _rank_weights(num_shards: int) -> NDArray[np.float64]:
    """Return how likely the best, second, … tenth of one shard is among the ten best of all, (10,).

    It is the chance that at least so many of ten contents fall into the shard.
    """
    share = 1 / num_shards
    chances = [comb(_K, n) * share**n * (1 - share) ** (_K - n) for n in range(_K + 1)]
    return np.cumsum(chances[::-1])[::-1][1:]


def _blocks(nodes: NDArray[np.float16]) -> Iterator[tuple[int, Embeddings]]:
    for first in range(0, len(nodes), _BLOCK):
        yield first, nodes[first : first + _BLOCK].astype(np.float32)


def _needed_gap(
    scores: NDArray[np.float32], lists: NDArray[np.int64], weights: NDArray[np.float64], target: float
) -> float:
    """Return the gap within which a share of `target` of the best nodes lie.

    `scores` are those of the centroids, (q, lists), and `lists` the best nodes' lists, (q, 10), which
    count by the `weights` of their ranks.

    The best one of the ten lies nearer its centroid than the others: on 40,000 rows with a power-law
    spectrum, a gap that found 0.9925 of the ten found 0.9967 of the best.
    """
    gaps = scores.max(axis=1, keepdims=True) - np.take_along_axis(scores, lists, axis=1)
    order = np.argsort(gaps, axis=None)
    within = np.cumsum(np.broadcast_to(weights[: lists.shape[1]], gaps.shape).ravel()[order])
    return float(gaps.ravel()[order[np.searchsorted(within, target * within[-1])]])


def _are_near(gap: float, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which lists each query scans, (q, lists). `scores` are those of the centroids."""
    are_near: NDArray[np.bool_] = scores >= scores.max(axis=1, keepdims=True) - gap
    return are_near
