"""`/v1/contents/{content_id}` and `/v1/index`: what the index holds."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web

from clip_index.content import MODALITIES
from query_api.answers.headlines import read_content
from query_api.answers.snapshot import EncoderAnswer, build_snapshot
from query_api.contents.index_models import (
    ContentAnswer,
    ContentParameters,
    GuaranteesAnswer,
    IndexAnswer,
    ShardAnswer,
)
from query_api.contract.error_codes import SEARCHING
from query_api.contract.route import Route
from query_api.http.bodies.reading import read_parameters
from query_api.http.json_answer import json_answer
from query_api.serving.engine import Index, Snapshot
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES


async def get_content(request: web.Request) -> web.Response:
    """Answer a content. Reload first, so that a client finds what any process has told it is searchable."""
    stages = request[STAGES]
    include = read_parameters(request, ContentParameters).include
    served = request[SERVED].index
    with stages.measure("reload"):
        await served.reload_for_request()
    searcher = served.searcher
    with stages.measure("columns"):
        content = await request.app[WORKERS].run(
            read_content,
            searcher,
            request.match_info["content_id"],
            include,
        )
    answer = ContentAnswer(
        content=content,
        snapshot=build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return json_answer(answer.model_dump_json(exclude_unset=True))


async def get_index(request: web.Request) -> web.Response:
    served = request[SERVED].index
    answer = _describe(served.index, served.searcher)
    return json_answer(answer.model_dump_json())


def _describe(index: Index, searcher: Snapshot) -> IndexAnswer:
    coverage = build_snapshot(searcher)
    shards = {
        name: ShardAnswer(
            **dict(coverage[name]),
            first_offset=shard.first_offset,
            num_contents={modality: shard.num_contents.get(modality, 0) for modality in MODALITIES},
        )
        for name, shard in searcher.shards.items()
    }
    return IndexAnswer(
        index_id=index.index_id,
        topic=index.description.topic,
        num_partitions=index.description.num_partitions,
        encoder=EncoderAnswer.of(index.description.fingerprint),
        num_contents={m: sum(shard.num_contents[m] for shard in shards.values()) for m in MODALITIES},
        shards=shards,
        snapshot=coverage,
        guarantees=GuaranteesAnswer(**asdict(index.guarantees)),
    )


ROUTES = (
    Route(
        method="GET",
        path="/v1/contents/{content_id}",
        handler=get_content,
        access="read",
        summary="One content, with all its fields.",
        answers={200: ContentAnswer},
        parameters=ContentParameters,
        codes=SEARCHING | {"unknown_content"},
    ),
    Route(
        method="GET",
        path="/v1/index",
        handler=get_index,
        access="read",
        summary="What the index holds.",
        answers={200: IndexAnswer},
        codes=SEARCHING,
    ),
)
