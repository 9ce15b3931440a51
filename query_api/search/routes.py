"""`/v1/search`: a search of any kind is read, covered, embedded, ranked, rated and written.

Each step has its file: `reading`, `serving/coverage`, `query_resolution`, `ranking`, `rating`, `results`.
A worker makes the last three in one call, `retrieval`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from aiohttp import web

from query_api.contract.error_codes import RATING, REFUSED_IMAGE, REFUSED_TEXT, SEARCHING
from query_api.contract.route import BINARY, FORM, JSON, OCTETS, Examples, Route
from query_api.errors import ApiError
from query_api.http.guards.access import CALLER
from query_api.http.guards.rate_limit import charge
from query_api.http.json_answer import json_answer
from query_api.search.offers import offer_searches
from query_api.search.paging.cursors import CURSOR_KEY, cursor_key, is_cursor_of, read_cursor
from query_api.search.paging.pages import Page, first_page, searcher_of_page
from query_api.search.query_resolution import QueryResolver, with_scales
from query_api.search.request.models import BatchAnswer, BatchRequest, Query, SearchAnswer, SearchRequest
from query_api.search.request.options import FreshnessOptions
from query_api.search.request.reading import read_batch_body, read_search_body, read_search_parameters
from query_api.search.request.texts import SearchMultipart, SearchParameters, VectorsParameters
from query_api.search.request.tokens import surplus_of_queries, surplus_of_search
from query_api.search.retrieval import search, search_page
from query_api.search.shared_searches import SHARED_SEARCHES, can_share
from query_api.serving.coverage import covered_searcher
from query_api.serving.engine import Snapshot
from query_api.serving.request_slots import REQUEST_SLOTS
from query_api.serving.workers import WORKERS
from query_api.swap.index_swap import INDEX_SWAP
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES


async def search_by_body(request: web.Request) -> web.Response:
    with request[STAGES].measure("read"):
        wanted = await read_search_body(request)
        charge(request, surplus_of_search(wanted))
    return json_answer(await _search(request, wanted))


async def search_by_parameters(request: web.Request) -> web.Response:
    with request[STAGES].measure("read"):
        wanted = read_search_parameters(request)
        charge(request, surplus_of_search(wanted))
    return json_answer(await _search(request, wanted))


async def search_by_batch(request: web.Request) -> web.Response:
    with request[STAGES].measure("read"):
        wanted = await read_batch_body(request)
        charge(request, surplus_of_queries(wanted.queries))
    return json_answer(await _search_batch(request, wanted, wanted.queries))


def _search(request: web.Request, wanted: SearchRequest) -> Awaitable[bytes]:
    if wanted.cursor is not None:
        return _search_next_page(request, wanted, wanted.cursor)
    if wanted.queries is not None:
        return _search_batch(request, wanted, wanted.queries)
    return _search_one(request, wanted)


async def _search_one(request: web.Request, wanted: SearchRequest) -> bytes:
    """Cover, embed, then rank, rate and write: the first page, among other searches, or alone."""
    stages = request[STAGES]
    with stages.measure("wait"):
        searcher = await _covered_searcher(request, wanted)
    with stages.measure("encode"):
        query = await _resolver(request, searcher).embed(wanted)
    query = with_scales(query, wanted, request[SERVED].scales)
    offer_searches(request, searcher, [(query, wanted)])
    if wanted.paged:
        return await _search_page(request, searcher, searcher, first_page(searcher, query, wanted))
    if can_share(wanted, stages):
        return await request.app[SHARED_SEARCHES].search(searcher, query, wanted, stages)
    return await request.app[WORKERS].run(search, searcher, query, wanted, stages)


async def _search_batch(request: web.Request, wanted: FreshnessOptions, queries: Sequence[Query]) -> bytes:
    """Cover, embed all queries, then rank, rate and write them together."""
    stages = request[STAGES]
    with stages.measure("wait"):
        searcher = await _covered_searcher(request, wanted)
    with stages.measure("encode"):
        embeddings = await _resolver(request, searcher).embed_all(queries)
    known = request[SERVED].scales
    pairs = [(with_scales(one, query, known), query) for one, query in zip(embeddings, queries, strict=True)]
    offer_searches(request, searcher, pairs)
    return await request.app[SHARED_SEARCHES].search_batch(searcher, pairs, stages)


async def _search_next_page(request: web.Request, wanted: SearchRequest, cursor: str) -> bytes:
    """Read the cursor, which holds the embedding; cover by the first page's generations; then as any page."""
    served = request[SERVED].index
    newest = served.searcher
    page = _read_cursor(request, cursor, newest.dimension)
    page = replace(
        page,
        query=with_scales(page.query, page.options, request[SERVED].scales),
        are_ranks_stable=served.index.guarantees.stable_pages,
    )
    if "k" in wanted.model_fields_set:
        page = replace(page, options=page.options.model_copy(update={"k": wanted.k}))
    with request[STAGES].measure("wait"):
        searcher = await searcher_of_page(served, page)
    return await _search_page(request, searcher, newest, page)


def _read_cursor(request: web.Request, cursor: str, dimension: int) -> Page:
    """Return the page that a cursor stands for; `generation_gone` if it is of an index that served before."""
    try:
        return read_cursor(cursor, _cursor_key(request), dimension)
    except ApiError:
        formers, configured = request.app[INDEX_SWAP].former_descriptions, request.app[CURSOR_KEY]
        if not any(is_cursor_of(cursor, former, configured) for former in formers):
            raise
    message = "the index of the first page no longer serves; begin again without a cursor"
    raise ApiError("generation_gone", message)


async def _search_page(request: web.Request, searcher: Snapshot, newest: Snapshot, page: Page) -> bytes:
    """Rank, rate and write a page, and keep its searcher for the next one."""
    request[SERVED].index.keep_for_pages(searcher)
    call = partial(search_page, searcher, newest, page, cursor_key=_cursor_key(request))
    return await request.app[WORKERS].run(call, stages=request[STAGES])


def _covered_searcher(request: web.Request, wanted: FreshnessOptions) -> Awaitable[Snapshot]:
    served, slots = request[SERVED].index, request.app[REQUEST_SLOTS].of(request[CALLER])
    return covered_searcher(served, slots, wanted.min_offsets, wanted.timeout_ms / 1000)


def _resolver(request: web.Request, searcher: Snapshot) -> QueryResolver:
    return QueryResolver(searcher, request[SERVED].encoder, request.app[WORKERS])


def _cursor_key(request: web.Request) -> bytes:
    return cursor_key(request.app[CURSOR_KEY], request[SERVED].index.index.description)


SEARCHES: Examples = MappingProxyType(
    {
        "pictures for a text": {"text": "a red dress", "k": 5, "modality": "image"},
        "with a filter, and metadata in the hits": {
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
        "contents like another": {"content_id": "shoe-1", "k": 5},
        "this, but less of that": {"terms": [{"text": "a red dress"}, {"text": "stripes", "weight": -0.5}]},
        "in pages: next_cursor leads to the next": {
            "text": "a red dress",
            "modality": "image",
            "paged": True,
        },
    }
)

BATCHES: Examples = MappingProxyType(
    {"two queries": {"queries": [{"text": "a red dress"}, {"text": "a blue hat", "k": 3}]}}
)
OF_SEARCHES = (
    SEARCHING
    | RATING
    | REFUSED_TEXT
    | REFUSED_IMAGE
    | {"too_many_hits", "unknown_content", "unknown_partition", "not_yet_covered"}
)

ROUTES = (
    Route(
        method="POST",
        path="/v1/search",
        handler=search_by_body,
        access="read",
        name="search",
        summary="Search by a text, an image, a content, a vector or weighted parts.",
        description="Also takes a form (`multipart/form-data`): a picture in the part `image`, and the other "
        "fields as parts of their names or together as JSON in a part named `query`.",
        answers={200: SearchAnswer},
        bodies={JSON: SearchRequest, FORM: SearchMultipart},
        examples=SEARCHES,
        codes=OF_SEARCHES | {"bad_cursor", "generation_gone", "bad_multipart"},
    ),
    Route(
        method="POST",
        path="/v1/search/batch",
        handler=search_by_batch,
        access="read",
        name="search_batch",
        summary="Up to 64 searches at once.",
        description="Also takes vectors alone (`application/octet-stream`): little-endian float32 numbers, "
        "one vector after another. The query string then has the options of all searches.",
        answers={200: BatchAnswer},
        bodies={JSON: BatchRequest, OCTETS: BINARY},
        parameters=VectorsParameters,
        examples=BATCHES,
        codes=OF_SEARCHES | {"unsupported_media_type"},
    ),
    Route(
        method="GET",
        path="/v1/search",
        handler=search_by_parameters,
        access="read",
        name="search_by_query_string",
        summary="Search by a text or a content.",
        answers={200: SearchAnswer},
        parameters=SearchParameters,
        codes=SEARCHING | REFUSED_TEXT | {"unknown_content", "unknown_partition", "not_yet_covered"} | RATING,
    ),
)
