"""`/openapi.json`, and `/docs`, which shows it with Swagger UI. Nothing is loaded from other hosts."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

from aiohttp import web

from query_api.contract.route import HTML, Route
from query_api.errors import ApiError
from query_api.http.json_answer import json_answer
from query_api.swap.served_pair import SERVED

DocumentOf: TypeAlias = Callable[[int], str]
DOCUMENT: web.AppKey[DocumentOf] = web.AppKey("document")
"""Returns the OpenAPI document, in JSON, for embeddings of a dimension."""

SCRIPT = "start.js"
JAVASCRIPT = "text/javascript"
ASSETS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": JAVASCRIPT}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>cliptide API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="document"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_START = """const page = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#document",
  deepLinking: true,
  onComplete: () => {
    if (!location.hash.startsWith("#/legacy")) page.layoutActions.show(["operations-tag", "legacy"], false);
  },
});
"""


async def get_document(request: web.Request) -> web.Response:
    """Answer the OpenAPI document of this service."""
    return json_answer(request.app[DOCUMENT](request[SERVED].encoder.fingerprint.dimension))


async def get_docs(_: web.Request) -> web.Response:
    """Answer the page that shows the document."""
    return web.Response(text=_PAGE, content_type=HTML, headers=HEADERS)


async def get_docs_asset(request: web.Request) -> web.StreamResponse:
    """Answer a script or style of the page. No other file of Swagger UI is served."""
    name = request.match_info["asset"]
    if name == SCRIPT:
        return web.Response(text=_START, content_type=JAVASCRIPT, headers=HEADERS)
    if name not in ASSETS:
        raise ApiError("unknown_route", "unknown file")
    headers = {**HEADERS, "Content-Type": ASSETS[name]}
    return web.FileResponse(_assets_directory() / name, headers=headers)


def _assets_directory() -> Path:
    """Return the directory of Swagger UI's files. The package is not imported: it loads a template engine."""
    package = find_spec("swagger_ui")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "static"


ROUTES = (
    Route(
        method="GET",
        path="/openapi.json",
        handler=get_document,
        access="open",
        summary="The OpenAPI document.",
        answers={200: {"type": "object"}},
    ),
    Route(
        method="GET",
        path="/docs",
        handler=get_docs,
        access="open",
        summary="The OpenAPI document in Swagger UI.",
        answers={200: {"type": "string"}},
        answer_type=HTML,
    ),
    Route(
        method="GET",
        path="/docs/{asset}",
        handler=get_docs_asset,
        access="open",
        summary="A script or style of `/docs`.",
        answers={200: {"type": "string"}},
        answer_type="text/*",
        codes=frozenset({"unknown_route"}),
    ),
)
