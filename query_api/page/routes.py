"""The page at `/` and its files, served from memory."""

from __future__ import annotations

from aiohttp import web

from query_api.contract.route import BINARY, HTML, Route
from query_api.errors import ApiError
from query_api.page.files import INDEX, PAGE


async def get_page(request: web.Request) -> web.Response:
    """Send the page itself."""
    return _send(request, INDEX)


async def get_page_file(request: web.Request) -> web.Response:
    """Send a script, a style or a picture of the page."""
    return _send(request, request.match_info["name"])


def _send(request: web.Request, name: str) -> web.Response:
    page = request.app[PAGE]
    file = page.files.get(name)
    if file is None:
        raise ApiError("unknown_route", "the page has no such file")
    headers = {**page.headers, "ETag": file.etag, "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == file.etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)


ROUTES = (
    Route(
        method="GET",
        path="/",
        handler=get_page,
        access="open",
        summary="The page for people.",
        answers={200: {"type": "string"}},
        answer_type=HTML,
    ),
    Route(
        method="GET",
        path="/page/{name}",
        handler=get_page_file,
        access="open",
        summary="A file of the page.",
        answers={200: BINARY},
        answer_type="application/octet-stream",
        codes=frozenset({"unknown_route"}),
    ),
)
