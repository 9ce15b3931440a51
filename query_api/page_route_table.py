"""The routes that the page is made of and lives on."""

from __future__ import annotations

from query_api.compat.html_gallery import HTML
from query_api.contents.browse_models import BrowseAnswer, BrowseRequest, CountAnswer, CountRequest
from query_api.contents.browse_routes import browse, count
from query_api.contents.live_routes import EVENT_STREAM, get_live
from query_api.contents.thumbnail_routes import WEBP, ThumbnailParameters, get_thumbnail
from query_api.contract.route import BINARY, JSON, Route
from query_api.page.routes import get_page, get_page_file

BROWSE_ROUTES = (
    Route(
        "POST",
        "/v1/browse",
        browse,
        "read",
        "The newest contents.",
        {200: BrowseAnswer},
        bodies={JSON: BrowseRequest},
        codes=frozenset({"bad_cursor", "no_index"}),
    ),
    Route(
        "POST",
        "/v1/counts",
        count,
        "read",
        "How many contents there are of each modality, source and owner.",
        {200: CountAnswer},
        bodies={JSON: CountRequest},
        codes=frozenset({"no_index"}),
    ),
    Route(
        "GET",
        "/v1/contents/{content_id}/thumbnail",
        get_thumbnail,
        "read",
        "The small picture that is kept of a content.",
        {200: BINARY},
        WEBP,
        parameters=ThumbnailParameters,
        codes=frozenset({"no_index", "no_thumbnail", "unknown_content"}),
    ),
    Route(
        "GET",
        "/v1/live",
        get_live,
        "read",
        "What is searchable now, as server-sent events that do not end.",
        {200: {"type": "string"}},
        EVENT_STREAM,
        codes=frozenset({"no_index"}),
        is_endless=True,
    ),
)
PAGE_ROUTES = (
    Route("GET", "/", get_page, "open", "The page for people.", {200: {"type": "string"}}, HTML),
    Route(
        "GET",
        "/page/{name}",
        get_page_file,
        "open",
        "A file of the page.",
        {200: BINARY},
        "application/octet-stream",
        codes=frozenset({"unknown_route"}),
    ),
)
