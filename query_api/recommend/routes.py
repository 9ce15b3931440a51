"""`/v1/recommend`: read, cover and embed here; a worker ranks (`recommendation`) and writes (`results`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from types import MappingProxyType

from aiohttp import web

from query_api.contract.error_codes import REFUSED_IMAGE, REFUSED_TEXT, SEARCHING
from query_api.contract.route import JSON, Examples, Route
from query_api.errors import ApiError
from query_api.http.bodies.reading import read_json_body
from query_api.http.guards.access import CALLER
from query_api.http.guards.rate_limit import charge
from query_api.http.json_answer import json_answer
from query_api.recommend.models import RecommendAnswer, RecommendRequest, WeightedExample
from query_api.recommend.owner_interests import OWNER_INTERESTS, OwnerInterests
from query_api.recommend.recommendation import (
    KnownExample,
    rankings_of_examples,
    rankings_of_interests,
)
from query_api.recommend.results import build_answer
from query_api.search.offers import offer_rankings
from query_api.search.query_resolution import QueryResolver
from query_api.search.ranking.ranking_requests import RankingRequest
from query_api.search.request.tokens import cost_of_examples, cost_of_options
from query_api.serving.coverage import covered_searcher
from query_api.serving.engine import Snapshot
from query_api.serving.request_slots import REQUEST_SLOTS
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES

OWNER_TOKENS = 100.0  # interests are clustered, and each is searched for


async def recommend(request: web.Request) -> web.Response:
    """Recommend by examples, or by what an owner uploaded before."""
    stages = request[STAGES]
    with stages.measure("read"):
        wanted = await read_json_body(request, RecommendRequest)
        charge(request, _surplus_of(wanted))
    served, slots = request[SERVED].index, request.app[REQUEST_SLOTS].of(request[CALLER])
    with stages.measure("wait"):
        searcher = await covered_searcher(served, slots, wanted.min_offsets, wanted.timeout_ms / 1000)
    with stages.measure("encode"):
        resolver = QueryResolver(searcher, request[SERVED].encoder, request.app[WORKERS])
        positive = await _embed_known(resolver, wanted.positive or [])
        negative = await _embed_known(resolver, wanted.negative)
    if wanted.positive is not None and not positive:
        raise ApiError("unknown_content", "none of the positive examples is a live content")
    build = partial(
        build_answer,
        searcher,
        wanted,
        positive=positive,
        negative=negative,
        stages=stages,
        owner_interests=request.app[OWNER_INTERESTS],
    )
    text = await request.app[WORKERS].run(build)
    asked = partial(_rankings_of, searcher, wanted, request.app[OWNER_INTERESTS], positive, negative)
    offer_rankings(request, searcher, asked)
    return json_answer(text)


def _rankings_of(
    searcher: Snapshot,
    wanted: RecommendRequest,
    owner_interests: OwnerInterests,
    positive: Sequence[KnownExample],
    negative: Sequence[KnownExample],
) -> Sequence[RankingRequest]:
    """Return the rankings that a recommendation has asked for. Blocking."""
    if wanted.owner_id is None:
        return rankings_of_examples(positive, negative, wanted)
    return rankings_of_interests(owner_interests.find(searcher, wanted.owner_id), wanted)


def _surplus_of(wanted: RecommendRequest) -> float:
    """Return the tokens of the rate limit that a recommendation costs beyond a plain search."""
    owner = OWNER_TOKENS if wanted.owner_id is not None else 0.0
    return owner + cost_of_examples([*(wanted.positive or ()), *wanted.negative]) + cost_of_options(wanted)


async def _embed_known(resolver: QueryResolver, examples: Sequence[WeightedExample]) -> list[KnownExample]:
    """Embed the examples, and leave out ids without a live content."""

    async def embed(position: int, example: WeightedExample) -> KnownExample | None:
        try:
            query = await resolver.embed_example(example)
        except ApiError as error:
            if error.code != "unknown_content":
                raise
            return None
        return KnownExample(position, example.content_id, query, example.weight)

    found = await asyncio.gather(*(embed(position, example) for position, example in enumerate(examples)))
    return [example for example in found if example is not None]


RECOMMENDATIONS: Examples = MappingProxyType(
    {
        "more like this, less like that": {
            "positive": [{"content_id": "shoe-1"}, {"text": "summer", "weight": 0.5}],
            "negative": [{"text": "leather"}],
            "k": 5,
        },
        "for an owner": {"owner_id": "owner-9", "modality": "image", "k": 5},
    }
)

ROUTES = (
    Route(
        method="POST",
        path="/v1/recommend",
        handler=recommend,
        access="read",
        summary="Recommend by examples, or by what an owner uploaded before.",
        answers={200: RecommendAnswer},
        bodies={JSON: RecommendRequest},
        examples=RECOMMENDATIONS,
        codes=SEARCHING
        | REFUSED_TEXT
        | REFUSED_IMAGE
        | {"unknown_content", "unknown_partition", "not_yet_covered"},
    ),
)
