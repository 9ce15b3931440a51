"""`/v1/search`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType

import structlog
from aiohttp import web

from clip_index.errors import DamagedFile, GenerationGone
from clip_index.reading.searcher import Searcher
from query_api.contract.error_codes import RATING, REFUSED_IMAGE, REFUSED_TEXT, SEARCHING
from query_api.contract.route import FORM, JSON, Examples, Route
from query_api.errors import ApiError
from query_api.http.json_answer import json_answer
from query_api.percentiles.renewal import PERCENTILE_SCALES
from query_api.search import retrieval
from query_api.search.cursors import CURSOR_KEY, Page, cursor_key, read_cursor
from query_api.search.models import Query, SearchAnswer, SearchAnswerOrBatch, SearchRequest
from query_api.search.options import RatedOptions
from query_api.search.paging import first_page, search_page
from query_api.search.query_embedding import QueryEmbedding
from query_api.search.query_resolution import embed_all, embed_query
from query_api.search.reading import read_search_body, read_search_parameters
from query_api.search.shared_searches import SHARED_SEARCHES, can_share
from query_api.search.texts import SearchMultipart, SearchParameters
from query_api.serving.coverage import covered_searcher
from query_api.serving.served_index import SERVED_INDEX
from query_api.serving.work_places import WORK_PLACES
from query_api.serving.workers import WORKERS
from query_api.telemetry.stages import STAGES

log = structlog.get_logger()


async def search_by_body(request: web.Request) -> web.Response:
    with request[STAGES].measure("read"):
        wanted = await read_search_body(request)
    return await _search(request, wanted)


async def search_by_parameters(request: web.Request) -> web.Response:
    with request[STAGES].measure("read"):
        wanted = read_search_parameters(request)
    return await _search(request, wanted)


async def _search(request: web.Request, wanted: SearchRequest) -> web.Response:
    if wanted.cursor is not None:
        return await _search_on(request, wanted, wanted.cursor)
    with request[STAGES].measure("wait"):
        searcher = await covered_searcher(
            request.app[SERVED_INDEX], request.app[WORK_PLACES], wanted.min_offsets, wanted.timeout_ms / 1000
        )
    if wanted.queries is not None:
        return await _search_batch(request, searcher, wanted.queries)
    stages = request[STAGES]
    with stages.measure("encode"):
        query = await embed_query(request, searcher, wanted)
    query = _rate(request, query, wanted)
    if wanted.paged:
        return await _search_page(request, searcher, searcher, first_page(searcher, query, wanted))
    if can_share(wanted, stages):
        return json_answer(await request.app[SHARED_SEARCHES].search(searcher, query, wanted, stages))
    return await _answer(request, lambda: retrieval.search(searcher, query, wanted, stages))


def _rate(request: web.Request, query: QueryEmbedding, options: RatedOptions) -> QueryEmbedding:
    """Add the percentile scales; `ApiError` if a percentile is demanded and there are none."""
    known = request.app[PERCENTILE_SCALES]
    if known is None and options.needs_percentiles:
        raise ApiError("percentiles_off", "this service rates no hits by percentile")
    scales = known.find(query.modality) if known else {}
    if scales is None and options.needs_percentiles:
        message = "the scale for percentiles is not built yet"
        raise ApiError("not_ready", message, headers={"Retry-After": "1"})
    return replace(query, scales=scales) if scales else query


async def _search_on(request: web.Request, wanted: SearchRequest, cursor: str) -> web.Response:
    served = request.app[SERVED_INDEX]
    newest = served.searcher
    page = read_cursor(cursor, _cursor_key(request), newest.dimension)
    page = replace(page, query=_rate(request, page.query, page.options))
    if "k" in wanted.model_fields_set:
        page = replace(page, options=page.options.model_copy(update={"k": wanted.k}))
    with request[STAGES].measure("wait"):
        try:
            searcher = await served.searcher_at(page.generations)
        except GenerationGone as error:
            message = f"{error}; begin again without a cursor"
            raise ApiError("generation_gone", message) from None
        except (DamagedFile, OSError) as error:
            log.error("former generation cannot be opened", error=str(error))
            message = "the first page's generation cannot be opened any more; begin again without a cursor"
            raise ApiError("generation_gone", message) from None
    return await _search_page(request, searcher, newest, page)


async def _search_page(
    request: web.Request, searcher: Searcher, newest: Searcher, page: Page
) -> web.Response:
    key, stages = _cursor_key(request), request[STAGES]
    request.app[SERVED_INDEX].keep_for_pages(searcher)
    return await _answer(request, lambda: search_page(searcher, newest, page, key=key, stages=stages))


def _cursor_key(request: web.Request) -> bytes:
    return cursor_key(request.app[CURSOR_KEY], request.app[SERVED_INDEX].directory.description)


async def _search_batch(request: web.Request, searcher: Searcher, queries: Sequence[Query]) -> web.Response:
    stages = request[STAGES]
    with stages.measure("encode"):
        embeddings = await embed_all(request, searcher, queries)
    pairs = [(_rate(request, one, query), query) for one, query in zip(embeddings, queries, strict=True)]
    return await _answer(request, lambda: retrieval.search_together(searcher, pairs, stages))


async def _answer(request: web.Request, build: Callable[[], bytes]) -> web.Response:
    return json_answer(await request.app[WORKERS].run(build))


SEARCHES: Examples = MappingProxyType(
    {
        "pictures for a text": {"text": "a red dress", "k": 5, "modality": "image"},
        "with a filter, metadata beside the hits": {
            "text": "a red dress",
            "filter": {
                "must": [
                    {"field": "source", "any_of": ["shop", "demo"]},
                    {"field": "metadata.price", "lt": 20},
                ]
            },
            "include": ["text", "metadata"],
        },
        "nothing for nonsense": {"text": "a red dress", "min_percentile": 0.9},
        "what is like a content": {"content_id": "shoe-1", "k": 5},
        "this, but less of that": {"terms": [{"text": "a red dress"}, {"text": "stripes", "weight": -0.5}]},
        "two queries at once": {"queries": [{"text": "a red dress"}, {"text": "a blue hat", "k": 3}]},
        "in pages: next_cursor leads on": {"text": "a red dress", "modality": "image", "paged": True},
    }
)


ROUTES = (
    Route(
        method="POST",
        path="/v1/search",
        handler=search_by_body,
        access="read",
        summary="Search by a text, an image, a content, a vector or weighted parts; one query or up to 64.",
        answers={200: SearchAnswerOrBatch},
        bodies={JSON: SearchRequest, FORM: SearchMultipart},
        examples=SEARCHES,
        codes=SEARCHING
        | REFUSED_TEXT
        | REFUSED_IMAGE
        | {
            "bad_cursor",
            "generation_gone",
            "too_many_hits",
            "bad_multipart",
            "unknown_content",
            "unknown_partition",
            "not_yet_covered",
        }
        | RATING,
    ),
    Route(
        method="GET",
        path="/v1/search",
        handler=search_by_parameters,
        access="read",
        summary="Search by a text or a content.",
        answers={200: SearchAnswer},
        parameters=SearchParameters,
        codes=SEARCHING | REFUSED_TEXT | {"unknown_content", "unknown_partition", "not_yet_covered"} | RATING,
    ),
)
