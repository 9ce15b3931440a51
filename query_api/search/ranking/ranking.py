"""The rank step: the hits of each ranking, without those that must not be answered. Blocking."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from typing import TypeAlias

import numpy as np

from clip_index.content import Modality, identity_of
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking_requests import PageEnd, RankingRequest, build_rated_requests
from query_api.search.request.options import RatedOptions
from query_api.serving.best_of_crops import best_of_crops
from query_api.serving.engine import Hit, Snapshot


@dataclass(frozen=True, slots=True)
class Ranking:
    """The hits of one request. `end` is where the next page goes on, None if no hit is left."""

    hits: list[Hit]
    end: PageEnd | None


Rankings: TypeAlias = dict[Modality, Ranking]


def rank(searcher: Snapshot, queries: Sequence[tuple[QueryEmbedding, RatedOptions]]) -> list[Rankings]:
    """Find the rankings of each query, in order; those of all queries are searched for together."""
    requests = [build_rated_requests(query, options) for query, options in queries]
    found = iter(find_rankings(searcher, [*chain.from_iterable(requests)]))
    return [{request.modality: next(found) for request in of_query} for of_query in requests]


def find_rankings(
    searcher: Snapshot, requests: Sequence[RankingRequest], newest: Snapshot | None = None
) -> list[Ranking]:
    """Answer requests in order. Those that differ in their query alone are one call of the searcher.

    With `newest`, contents that are no longer live there are left out.
    """
    if len(requests) == 1:
        [request] = requests
        [hits] = _search(searcher, requests, request.num_first_searched)
        return [_select(searcher, request, hits, newest)]
    together: dict[object, list[int]] = defaultdict(list)
    for position, one in enumerate(requests):
        together[_kind_of(one)].append(position)
    found: dict[int, list[Hit]] = {}
    for positions in together.values():
        first = requests[positions[0]]
        answers = _search(searcher, [requests[p] for p in positions], first.num_first_searched)
        found.update(zip(positions, answers, strict=True))
    return [_select(searcher, one, found[position], newest) for position, one in enumerate(requests)]


def _kind_of(request: RankingRequest) -> object:
    """Return what requests of one call of the searcher have in common."""
    filter_key = request.row_filter and request.row_filter.key
    return request.modality, request.num_first_searched, filter_key, request.depth, _least_score(request)


def _least_score(request: RankingRequest) -> float | None:
    """Return the least score that the searcher is told: in pages, what lies below it ends no ranking.

    A ranking without pages is in order of scores, so that it ends at the first hit below.
    """
    return None if request.depth is None else request.min_score


def _search(searcher: Snapshot, requests: Sequence[RankingRequest], num_wanted: int) -> list[list[Hit]]:
    first = requests[0]
    searched = [request.query.searched for request in requests]
    found = searcher.search(
        np.concatenate(searched),
        k=num_wanted,
        modality=first.modality,
        min_score=_least_score(first),
        row_filter=first.row_filter,
        depth=first.depth,
    )
    of_each = iter(found)
    return [best_of_crops([*islice(of_each, len(one))], num_wanted) for one in searched]


def _select(searcher: Snapshot, request: RankingRequest, hits: list[Hit], newest: Snapshot | None) -> Ranking:
    """Take the first k hits that may be answered; while there are fewer, search for twice as many."""
    if newest is None and request.takes_every_hit:
        return Ranking(hits, _end_of(hits[-1], len(hits)) if len(hits) == request.k else None)
    num_wanted = request.num_first_searched
    while True:
        taken = list(islice(_answerable(searcher, request, hits, newest), request.k))
        if len(taken) == request.k or len(hits) < num_wanted:
            break
        num_wanted *= 2
        [hits] = _search(searcher, [request], num_wanted)
    selected = [hit for _, hit in taken]
    if len(selected) < request.k:
        return Ranking(selected, None)
    rank_of_last, last = taken[-1]
    return Ranking(selected, _end_of(last, rank_of_last + 1))


def _end_of(last: Hit, num_before: int) -> PageEnd:
    return PageEnd(last.score, last.content_id, num_before)


def _answerable(
    searcher: Snapshot, request: RankingRequest, hits: Sequence[Hit], newest: Snapshot | None
) -> Iterator[tuple[int, Hit]]:
    """Yield the hits that may be answered, each with its rank among all."""
    answered: dict[bytes, str] = {}  # the id of the content that stands for all of the same embeddings

    @cache
    def is_live(content_id: str) -> bool:
        return newest is None or newest.find(content_id) is not None

    for rank_of_hit, hit in enumerate(hits):
        if request.min_score is not None and hit.score < request.min_score:
            return
        if hit.content_id in request.query.excluded_ids:
            continue
        if request.is_collapsing:
            embedding = identity_of(searcher.embeddings(hit.location))
            if embedding in answered and is_live(answered[embedding]):
                continue
            answered[embedding] = hit.content_id
        if request.is_on_former_page(rank_of_hit, hit):
            continue
        if is_live(hit.content_id):
            yield rank_of_hit, hit
