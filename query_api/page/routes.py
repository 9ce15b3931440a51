"""The web page at `/` and its files, served from memory."""

from __future__ import annotations

from aiohttp import web

from query_api.contract.route import BINARY, HTML, Route
from query_api.errors import ApiError
from query_api.http.entity_tags import is_known
from query_api.page.files import INDEX, PAGE

FOR_EVER = "public, max-age=31536000, immutable"


async def get_page(request: web.Request) -> web.Response:
    """Send the page itself."""
    return _send(request, INDEX)


async def get_page_file(request: web.Request) -> web.Response:
    """Send a script, a style or a picture of the page."""
    return _send(request, request.match_info["file"])


def _send(request: web.Request, path: str) -> web.Response:
    """Answer a file, or 304 if the client has it already.

    With the current version in its path a file may be kept for ever. Otherwise the browser must ask
    again: a service that is being replaced answers an older page's addresses with its own files.
    """
    page = request.app[PAGE]
    name, is_current = page.split(path)
    file = page.files.get(name)
    if file is None:
        raise ApiError("unknown_route", "unknown file")
    headers = {**page.headers, "ETag": file.etag, "Cache-Control": FOR_EVER if is_current else "no-cache"}
    if is_known(request, file.etag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)


ROUTES = (
    Route(
        method="GET",
        path="/",
        handler=get_page,
        access="open",
        summary="The web page.",
        answers={200: {"type": "string"}},
        answer_type=HTML,
    ),
    Route(
        method="GET",
        path="/page/{file}",
        handler=get_page_file,
        access="open",
        summary="A file of the web page.",
        answers={200: BINARY},
        answer_type="application/octet-stream",
        codes=frozenset({"unknown_route"}),
    ),
)
