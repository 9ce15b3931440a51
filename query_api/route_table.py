"""Every route that is served: each API's own `ROUTES`, joined under the tags of the OpenAPI document."""

from __future__ import annotations

from dataclasses import replace

from query_api import api_docs, health
from query_api.compat import links, mv_retrieval
from query_api.contents import browse_routes, index_routes, live_routes, thumbnail_routes
from query_api.page import routes as page
from query_api.recommend import routes as recommend
from query_api.search import embed
from query_api.search import routes as search
from query_api.uploads import routes as uploads

ROUTES = tuple(
    replace(route, tag=tag)
    for tag, routes in {
        "search": (*search.ROUTES, *recommend.ROUTES, *embed.ROUTES),
        "contents": (*index_routes.ROUTES, *uploads.ROUTES),
        "what there is": (*browse_routes.ROUTES, *thumbnail_routes.ROUTES, *live_routes.ROUTES),
        "health": health.ROUTES,
        "as two earlier services answered": (*mv_retrieval.ROUTES, *links.ROUTES),
        "pages": (*api_docs.ROUTES, *page.ROUTES),
    }.items()
    for route in routes
)
