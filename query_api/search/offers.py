"""Offers what was asked to those who sample it: the recall watch, and the sample of live queries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from aiohttp import web

from query_api.search.query_sample import QUERY_SAMPLE
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking_requests import build_rated_requests
from query_api.search.recall_watch import RECALL_WATCH, BuildRankings
from query_api.search.request.models import Query
from query_api.serving.engine import Snapshot
from query_api.swap.index_swap import INDEX_SWAP
from query_api.swap.served_pair import SERVED


def offer_searches(
    request: web.Request, searcher: Snapshot, searches: Sequence[tuple[QueryEmbedding, Query]]
) -> None:
    """Offer the searches of a request to both. None of them is changed or delayed by that."""
    sample = request.app[QUERY_SAMPLE]
    for embedding, query in searches:
        sample.offer(query)
        offer_rankings(request, searcher, partial(build_rated_requests, embedding, query))


def offer_rankings(request: web.Request, searcher: Snapshot, build: BuildRankings) -> None:
    """Let some requests be answered again, exactly, in the background.

    A request that holds a former index tells nothing of the one that serves, so it is not offered.
    """
    watch = request.app[RECALL_WATCH]
    if watch is not None and request[SERVED] is request.app[INDEX_SWAP].pair:
        watch.offer(searcher, build)
