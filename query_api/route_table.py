"""Every route that is served, with what the document says of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from query_api.api_docs import get_docs, get_docs_asset, get_document
from query_api.body_examples import EMBEDDINGS, RECOMMENDATIONS, SEARCHES, UPLOADS
from query_api.compat.html_gallery import HTML
from query_api.compat.links import (
    LINKS_SCHEMA,
    NoParameters,
    TextQueryParameters,
    display_image,
    display_text,
    image_url,
    text_url,
)
from query_api.compat.mv_retrieval import (
    AddedAnswer,
    AddParameters,
    RecommendedAnswer,
    RecommendParameters,
    RetrievedAnswer,
    RetrieveParameters,
    add_content,
    recommend_contents,
    retrieve_contents,
)
from query_api.contents.index_models import ContentAnswer, IndexAnswer
from query_api.contents.index_routes import get_content, get_index
from query_api.contract.models import StatusAnswer
from query_api.contract.route import BINARY, FORM, JSON, OCTETS, Described, Route
from query_api.contract.schema_rules import NOT_BLANK
from query_api.embed_models import EmbedAnswer, EmbedRequest
from query_api.form_models import ImageQueryMultipart, SearchMultipart, UploadMultipart
from query_api.health import get_livez, get_readyz
from query_api.page_route_table import BROWSE_ROUTES, PAGE_ROUTES
from query_api.recommend.models import RecommendAnswer, RecommendRequest
from query_api.recommend.routes import recommend
from query_api.search.embed import embed
from query_api.search.models import SearchAnswer, SearchAnswerOrBatch, SearchRequest
from query_api.search.routes import search_by_body, search_by_parameters
from query_api.search.texts import ContentParameters, SearchParameters
from query_api.uploads.models import (
    DeleteParameters,
    PublishedAnswer,
    RawUploadParameters,
    SearchableAnswer,
    UploadRequest,
)
from query_api.uploads.reading import IMAGE_TYPES
from query_api.uploads.routes import delete_content, post_content

REFUSED_TEXT = frozenset({"empty_text", "text_too_long"})
REFUSED_IMAGE = frozenset({"not_an_image", "unsupported_image", "image_too_large", "truncated_image"})
SEARCHING = frozenset({"no_index"})
RATING = frozenset({"not_ready", "percentiles_off"})
WRITING = frozenset(
    {
        "publishing_off",
        "superseded",
        "content_too_large",
        "set_aside",
        "log_unavailable",
        "not_searchable_in_time",
    }
)
BY_IMAGE: Mapping[str, Described] = {FORM: ImageQueryMultipart}
WRITTEN: Mapping[int, Described] = {200: SearchableAnswer, 202: PublishedAnswer}

SEARCH_ROUTES = (
    Route(
        "POST",
        "/v1/search",
        search_by_body,
        "read",
        "Search by a text, an image, a content or a vector, by weighted ones, or for up to 64 queries.",
        {200: SearchAnswerOrBatch},
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
        "GET",
        "/v1/search",
        search_by_parameters,
        "read",
        "Search by a text or a content.",
        {200: SearchAnswer},
        parameters=SearchParameters,
        codes=SEARCHING | REFUSED_TEXT | {"unknown_content", "unknown_partition", "not_yet_covered"} | RATING,
    ),
    Route(
        "POST",
        "/v1/recommend",
        recommend,
        "read",
        "Recommend by examples, or by what an owner uploaded before.",
        {200: RecommendAnswer},
        bodies={JSON: RecommendRequest},
        examples=RECOMMENDATIONS,
        codes=SEARCHING
        | REFUSED_TEXT
        | REFUSED_IMAGE
        | {"unknown_content", "unknown_partition", "not_yet_covered"},
    ),
)
CONTENT_ROUTES = (
    Route(
        "GET",
        "/v1/contents/{content_id}",
        get_content,
        "read",
        "Read a content.",
        {200: ContentAnswer},
        parameters=ContentParameters,
        codes=SEARCHING | {"unknown_content"},
    ),
    Route(
        "POST",
        "/v1/contents",
        post_content,
        "write",
        "Upload a content.",
        WRITTEN,
        parameters=RawUploadParameters,
        required_parameters=frozenset(),  # JSON and forms carry the content id themselves
        bodies={
            JSON: UploadRequest,
            FORM: UploadMultipart,
            "text/plain": {"type": "string"} | NOT_BLANK,
            **dict.fromkeys(IMAGE_TYPES, BINARY),
        },
        examples=UPLOADS,
        codes=WRITING | REFUSED_TEXT | REFUSED_IMAGE | {"bad_multipart"},
    ),
    Route(
        "DELETE",
        "/v1/contents/{content_id}",
        delete_content,
        "write",
        "Delete a content.",
        WRITTEN,
        parameters=DeleteParameters,
        codes=WRITING - {"content_too_large"},
    ),
    Route(
        "GET", "/v1/index", get_index, "read", "What the index holds.", {200: IndexAnswer}, codes=SEARCHING
    ),
)
EMBED_ROUTES = (
    Route(
        "POST",
        "/v1/embed",
        embed,
        "read",
        "The embeddings of texts and images, as an index would hold them.",
        {200: EmbedAnswer},
        bodies={JSON: EmbedRequest},
        examples=EMBEDDINGS,
        codes=REFUSED_TEXT | REFUSED_IMAGE,
    ),
)
MV_RETRIEVAL_ROUTES = (
    Route(
        "POST",
        "/mv_retrieval/v0.1/add_content",
        add_content,
        "write",
        "Upload a text or an image; answered when it is searchable.",
        {200: AddedAnswer},
        parameters=AddParameters,
        bodies={OCTETS: BINARY},
        codes=WRITING - {"superseded"} | REFUSED_TEXT | REFUSED_IMAGE,
    ),
    Route(
        "POST",
        "/mv_retrieval/v0.1/retrieve_contents",
        retrieve_contents,
        "read",
        "The contents nearest to a text or an image.",
        {200: RetrievedAnswer},
        parameters=RetrieveParameters,
        bodies={OCTETS: BINARY},
        codes=SEARCHING | REFUSED_TEXT | REFUSED_IMAGE,
    ),
    Route(
        "POST",
        "/mv_retrieval/v0.1/recommend_contents",
        recommend_contents,
        "read",
        "What others uploaded that fits the interests of a user's uploads.",
        {200: RecommendedAnswer},
        parameters=RecommendParameters,
        codes=SEARCHING,
    ),
)
LINK_ROUTES = (
    Route(
        "POST",
        "/text_url",
        text_url,
        "read",
        "The links of the best images for a text.",
        {200: LINKS_SCHEMA},
        parameters=TextQueryParameters,
        codes=SEARCHING | REFUSED_TEXT,
    ),
    Route(
        "POST",
        "/image_url",
        image_url,
        "read",
        "The links of the best images for an image.",
        {200: LINKS_SCHEMA},
        parameters=NoParameters,
        bodies=BY_IMAGE,
        codes=SEARCHING | REFUSED_IMAGE | {"bad_multipart"},
    ),
    Route(
        "POST",
        "/display_text",
        display_text,
        "read",
        "The best images for a text, shown.",
        {200: {"type": "string"}},
        HTML,
        parameters=TextQueryParameters,
        codes=SEARCHING | REFUSED_TEXT,
    ),
    Route(
        "POST",
        "/display_image",
        display_image,
        "read",
        "The best images for an image, shown.",
        {200: {"type": "string"}},
        HTML,
        parameters=NoParameters,
        bodies=BY_IMAGE,
        codes=SEARCHING | REFUSED_IMAGE | {"bad_multipart"},
    ),
)
HEALTH_ROUTES = (
    Route(
        "GET",
        "/livez",
        get_livez,
        "open",
        "Whether the process works.",
        {200: StatusAnswer},
        codes=frozenset({"reload_stopped", "encoder_stopped"}),
    ),
    Route(
        "GET",
        "/readyz",
        get_readyz,
        "open",
        "Whether searches can be answered.",
        {200: StatusAnswer},
        codes=frozenset({"not_ready"}),
    ),
)
DOCUMENT_ROUTES = (
    Route("GET", "/openapi.json", get_document, "open", "This document.", {200: {"type": "object"}}),
    Route("GET", "/docs", get_docs, "open", "This document, shown.", {200: {"type": "string"}}, HTML),
    Route(
        "GET",
        "/docs/{asset}",
        get_docs_asset,
        "open",
        "A script or style of `/docs`.",
        {200: {"type": "string"}},
        "text/*",
        codes=frozenset({"unknown_route"}),
    ),
)
ROUTES = tuple(
    replace(route, tag=tag)
    for tag, routes in {
        "search": (*SEARCH_ROUTES, *EMBED_ROUTES),
        "contents": CONTENT_ROUTES,
        "what there is": BROWSE_ROUTES,
        "health": HEALTH_ROUTES,
        "as two earlier services answered": (*MV_RETRIEVAL_ROUTES, *LINK_ROUTES),
        "pages": (*DOCUMENT_ROUTES, *PAGE_ROUTES),
    }.items()
    for route in routes
)
