"""The queries that calibration asks, made of a segment's own embeddings, and their exact answers.

They are of several kinds: of the same modality, of the other one, sums and differences of two, and random
directions, which are far from everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from clip_index.content import Embeddings

_FAR_TARGET = 0.9875  # for queries that are far from everything, whose ranking is nearly arbitrary
NUM_BEST = 10
"""What a usual search asks for."""
_NUM_QUERIES = 512
_NUM_FAR_QUERIES = 256
_NUM_SUMS = 256  # of each kind
_BLOCK = 16384
SEED = 4321
_HELD_OUT_PART = 8
_ASKED_PART = 12  # so few that they are all held out, although by chance fewer than an eighth may be
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # of splitmix64
_SUBTRACTED = 0.5
"""What is subtracted counts half in the differences that are asked."""


class AskedKind(NamedTuple):
    """Queries, (q, dimension), which do not find the nodes `own`, (q, n), that they are made of.

    `target` is the recall that they should reach. Rare ones may take a little longer.
    """

    queries: Embeddings
    own: NDArray[np.int64]
    target: float
    is_rare: bool = False


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
    factors = np.random.default_rng(SEED).integers(2**64, size=embeddings.shape[1], dtype=np.uint64)
    lots = np.empty(len(embeddings), np.uint64)
    for first in range(0, len(embeddings), _BLOCK):
        block = np.ascontiguousarray(embeddings[first : first + _BLOCK]).view(np.uint16).astype(np.uint64)
        lots[first : first + _BLOCK] = block @ factors
    mixed: NDArray[np.uint64] = (lots ^ (lots >> np.uint64(29))) * _MIX
    return mixed


def kinds_of_queries(
    nodes: NDArray[np.float16], others: NDArray[np.float16] | None, target_recall: float
) -> list[AskedKind]:
    """Return the kinds of queries that are asked. The last one is far from everything."""
    held_out = hold_out(nodes)
    same = AskedKind(nodes[held_out].astype(np.float32), held_out[:, None], target_recall)
    kinds, pairs = [same], [(same, same, 1.0), (same, same, -_SUBTRACTED)]
    if others is not None and len(others):
        queries = others[hold_out(others)].astype(np.float32)
        other = AskedKind(queries, np.full((len(queries), 1), -1), target_recall)
        kinds, pairs = [same, other], [*pairs, (same, other, 1.0), (other, other, 1.0)]
    kinds += [_sum_pairs(*pair) for pair in pairs]
    far = np.random.default_rng(SEED).standard_normal((_NUM_FAR_QUERIES, nodes.shape[1]))
    far /= np.linalg.norm(far, axis=1, keepdims=True)
    nothing = np.full((len(far), 1), -1)
    return [*kinds, AskedKind(far.astype(np.float32), nothing, min(_FAR_TARGET, target_recall), True)]


def _sum_pairs(first: AskedKind, second: AskedKind, factor: float) -> AskedKind:
    """Return unit sums of some queries and of a factor times the next ones of another kind."""
    some = np.arange(min(_NUM_SUMS, len(first.queries), len(second.queries)))
    following = (some + 1) % len(second.queries)
    sums = first.queries[some] + np.float32(factor) * second.queries[following]
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.float32(1e-6))
    return AskedKind(
        sums, np.concatenate([first.own[some], second.own[following]], axis=1), first.target, True
    )


def find_best(queries: Embeddings, nodes: NDArray[np.float16], own: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ten best nodes of each query, (q, 10), best first, by a scan; without its `own`, (q, n)."""
    scores = np.empty((len(queries), 0), np.float32)
    best = np.empty((len(queries), 0), np.int64)
    for first, block in _blocks(nodes):
        found = queries @ block.T
        is_own = (own >= first) & (own < first + len(block))
        found[np.nonzero(is_own)[0], own[is_own] - first] = -np.inf
        scores = np.concatenate([scores, found], axis=1)
        best = np.concatenate([best, np.broadcast_to(np.arange(first, first + len(block)), found.shape)], 1)
        order = np.argpartition(-scores, min(NUM_BEST, scores.shape[1]) - 1, axis=1)[:, :NUM_BEST]
        scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(best, order, 1)
    return np.take_along_axis(best, np.argsort(-scores, axis=1, kind="stable"), 1)


def _blocks(nodes: NDArray[np.float16]) -> Iterator[tuple[int, Embeddings]]:
    for first in range(0, len(nodes), _BLOCK):
        yield first, nodes[first : first + _BLOCK].astype(np.float32)
