"""The page at `/` and its files, served from memory."""

from __future__ import annotations

from aiohttp import web

from query_api.app_keys import PAGE
from query_api.errors import ApiError
from query_api.page.files import INDEX


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
