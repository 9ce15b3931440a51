"""Every route that is served: the `ROUTES` of all APIs, with the OpenAPI document's tags."""

from __future__ import annotations

from dataclasses import replace

from query_api import api_docs, health
from query_api.compat import links, mv_retrieval
from query_api.contents import (
    browse_routes,
    candidate_routes,
    facet_routes,
    index_routes,
    live_routes,
    thumbnail_routes,
)
from query_api.page import routes as page
from query_api.recommend import routes as recommend
from query_api.search import embed, sample_routes
from query_api.search import routes as search
from query_api.uploads import bulk_routes
from query_api.uploads import routes as uploads

DOCUMENTED = {
    "search": (*search.ROUTES, *recommend.ROUTES, *embed.ROUTES, *sample_routes.ROUTES),
    "contents": (*index_routes.ROUTES, *candidate_routes.ROUTES, *uploads.ROUTES, *bulk_routes.ROUTES),
    "browse": (
        *browse_routes.ROUTES,
        *facet_routes.ROUTES,
        *thumbnail_routes.ROUTES,
        *live_routes.ROUTES,
    ),
    "health": health.ROUTES,
    "legacy": (*mv_retrieval.ROUTES, *links.ROUTES),
}
HIDDEN = (*api_docs.ROUTES, *page.ROUTES)  # for browsers: the web page, and the document itself

ROUTES = (*(replace(route, tag=tag) for tag, routes in DOCUMENTED.items() for route in routes), *HIDDEN)
