"""`/v1/recommend`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from types import MappingProxyType

from aiohttp import web

from clip_index.content import Modality
from clip_index.reading.searcher import Searcher
from query_api.answers.snapshot import build_snapshot
from query_api.contract.error_codes import REFUSED_IMAGE, REFUSED_TEXT, SEARCHING
from query_api.contract.route import JSON, Examples, Route
from query_api.errors import ApiError
from query_api.http.bodies import read_json_body
from query_api.http.json_answer import json_answer
from query_api.recommend.interests import Interest
from query_api.recommend.models import (
    InterestAnswer,
    RecommendAnswer,
    RecommendedHit,
    RecommendedHits,
    RecommendRequest,
    WeightedExample,
)
from query_api.recommend.recommendation import (
    KnownExample,
    Recommended,
    find_owner_interests,
    recommend_by_examples,
    recommend_by_interests,
)
from query_api.search.query_resolution import embed_example
from query_api.search.retrieval import build_hits
from query_api.serving.coverage import covered_searcher
from query_api.serving.served_index import SERVED_INDEX
from query_api.serving.work_places import WORK_PLACES
from query_api.serving.workers import WORKERS
from query_api.telemetry.stages import STAGES, Stages


async def recommend(request: web.Request) -> web.Response:
    """Recommend by examples, or by what an owner uploaded before."""
    stages = request[STAGES]
    with stages.measure("read"):
        wanted = await read_json_body(request, RecommendRequest)
    with stages.measure("wait"):
        searcher = await covered_searcher(
            request.app[SERVED_INDEX], request.app[WORK_PLACES], wanted.min_offsets, wanted.timeout_ms / 1000
        )
    with stages.measure("encode"):
        positive = await _embed_known(request, searcher, wanted.positive or [])
        negative = await _embed_known(request, searcher, wanted.negative)
    if wanted.positive is not None and not positive:
        raise ApiError("unknown_content", "none of the positive examples is a live content")
    build = partial(_answer, searcher, wanted, positive=positive, negative=negative, stages=stages)
    text = await request.app[WORKERS].run(build)
    return json_answer(text)


async def _embed_known(
    request: web.Request, searcher: Searcher, examples: Sequence[WeightedExample]
) -> list[KnownExample]:
    """Embed the examples, leaving out ids without a live content."""

    async def embed(position: int, example: WeightedExample) -> KnownExample | None:
        try:
            query = await embed_example(request, searcher, example)
        except ApiError as error:
            if error.code != "unknown_content":
                raise
            return None
        return KnownExample(position, example.content_id, query, example.weight)

    found = await asyncio.gather(*(embed(position, example) for position, example in enumerate(examples)))
    return [example for example in found if example is not None]


def _missing_ids(examples: Sequence[WeightedExample], known: Sequence[KnownExample]) -> list[str]:
    asked = [example.content_id for example in examples if example.content_id is not None]
    found = {example.content_id for example in known}
    return sorted({content_id for content_id in asked if content_id not in found})


def _answer(
    searcher: Searcher,
    wanted: RecommendRequest,
    *,
    positive: Sequence[KnownExample],
    negative: Sequence[KnownExample],
    stages: Stages,
) -> str:
    interests: list[Interest] = []
    with stages.measure("search"):
        observed = searcher.observed_by(stages.search_observer)
        if wanted.owner_id is None:
            found = recommend_by_examples(observed, positive, negative, wanted)
        else:
            interests = find_owner_interests(observed, wanted.owner_id)
            found = recommend_by_interests(observed, interests, wanted)
    with stages.measure("columns"):
        results = _build_results(searcher, found, wanted)
    answer = RecommendAnswer(
        results=results,
        missing_ids=_missing_ids([*(wanted.positive or []), *wanted.negative], [*positive, *negative]),
        interests=[_describe(interest) for interest in interests],
        snapshot=build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return answer.model_dump_json(exclude_unset=True)


def _build_results(
    searcher: Searcher, found: dict[Modality, list[Recommended]], wanted: RecommendRequest
) -> dict[Modality, RecommendedHits]:
    results = {}
    for modality, recommended in found.items():
        hits = build_hits(searcher, [one.hit for one in recommended], wanted.include)
        results[modality] = RecommendedHits(
            hits=[
                RecommendedHit(**hit, because=one.because) for hit, one in zip(hits, recommended, strict=True)
            ]
        )
    return results


def _describe(interest: Interest) -> InterestAnswer:
    return InterestAnswer(
        content_id=interest.medoid.content_id,
        num_uploads=interest.num_uploads,
        weight=round(interest.weight, 4),
    )


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
