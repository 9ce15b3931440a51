"""`/v1/contents/{content_id}` and `/v1/index`: what the index holds."""

from __future__ import annotations

from aiohttp import web

from clip_index.content import MODALITIES
from clip_index.generations.index_directory import IndexDirectory
from clip_index.reading.searcher import Searcher
from query_api.app_keys import SERVED_INDEX, STAGES, WORKERS
from query_api.contents.index_models import ContentAnswer, EncoderAnswer, IndexAnswer, ShardAnswer
from query_api.contract.validation import read_parameters
from query_api.search import retrieval
from query_api.search.texts import ContentParameters


async def get_content(request: web.Request) -> web.Response:
    """Look for a newer generation first, so that a client finds what it saw acknowledged as searchable."""
    stages = request[STAGES]
    include = read_parameters(request, ContentParameters).include
    served = request.app[SERVED_INDEX]
    with stages.measure("reload"):
        await served.reload()
    searcher = served.searcher
    with stages.measure("columns"):
        content = await request.app[WORKERS].run(
            retrieval.read_content,
            searcher,
            request.match_info["content_id"],
            include,
        )
    answer = ContentAnswer(
        content=content,
        snapshot=retrieval.build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return web.Response(text=answer.model_dump_json(exclude_unset=True), content_type="application/json")


async def get_index(request: web.Request) -> web.Response:
    served = request.app[SERVED_INDEX]
    answer = _describe(served.directory, served.searcher)
    return web.Response(text=answer.model_dump_json(), content_type="application/json")


def _describe(index: IndexDirectory, searcher: Searcher) -> IndexAnswer:
    coverage = retrieval.build_snapshot(searcher)
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
    )
