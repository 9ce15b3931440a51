"""`/v1/contents/{content_id}/thumbnail`: the picture that the index keeps of a content, in two sizes."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from pydantic import Field

from query_api.answers.headlines import locate
from query_api.contents.small_thumbnails import SMALL_SIDE, SMALL_THUMBNAILS
from query_api.contract.models import NextOffset, Request
from query_api.contract.route import BINARY, Route
from query_api.errors import ApiError
from query_api.http.bodies.reading import read_parameters
from query_api.http.entity_tags import etag_of, is_known
from query_api.serving.engine import Snapshot
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES

WEBP = "image/webp"
AN_HOUR = "private, max-age=3600"
"""No longer, because nobody can take a thumbnail back from a browser when its content is deleted."""


class ThumbnailParameters(Request):
    """The query string of a thumbnail."""

    offset: NextOffset | None = Field(
        default=None,
        description="The upload's offset. While it is the content's, the answer may be cached for an hour.",
    )
    size: Literal["small", "kept"] = Field(
        default="kept",
        description=f"`small`: at most {SMALL_SIDE} pixels wide and high. `kept`: as the index keeps it, "
        "which screens of twice the density show sharp.",
    )


async def get_thumbnail(request: web.Request) -> web.Response:
    """Send a content's thumbnail, or 304 if the client has it already."""
    wanted = read_parameters(request, ThumbnailParameters)
    searcher = request[SERVED].index.searcher
    with request[STAGES].measure("columns"):
        thumbnail, found_offset = await request.app[WORKERS].run(
            read_thumbnail, searcher, request.match_info["content_id"]
        )
        if wanted.size == "small":
            thumbnail = await request.app[WORKERS].run(request.app[SMALL_THUMBNAILS].of, thumbnail)
    etag = etag_of(thumbnail)
    headers = {
        "ETag": etag,
        "Cache-Control": AN_HOUR if wanted.offset == found_offset else "no-cache",
        "Content-Security-Policy": "default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    if is_known(request, etag):
        return web.Response(status=304, headers=headers)
    return web.Response(body=thumbnail, content_type=WEBP, headers=headers)


def read_thumbnail(searcher: Snapshot, content_id: str) -> tuple[bytes, int]:
    """Return a WebP file and its content's offset, or raise `ApiError`. Blocking."""
    location = locate(searcher, content_id)
    thumbnail = searcher.thumbnail(location)
    if thumbnail is None:
        raise ApiError("no_thumbnail", "this content has no thumbnail")
    [stored] = searcher.read_many([location], ())
    return thumbnail, stored.offset


ROUTES = (
    Route(
        method="GET",
        path="/v1/contents/{content_id}/thumbnail",
        handler=get_thumbnail,
        access="read",
        summary="The thumbnail of a content.",
        answers={200: BINARY},
        answer_type=WEBP,
        parameters=ThumbnailParameters,
        codes=frozenset({"no_index", "no_thumbnail", "unknown_content"}),
    ),
)
