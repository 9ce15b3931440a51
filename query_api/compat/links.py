"""`/text_url`, `/image_url`, `/display_text`, `/display_image`: the best images by their links, or shown.

The calls of an image search service, for its clients as they are. Images without an http(s)
link are passed over: there is nothing to send a browser to.
"""

from __future__ import annotations

from aiohttp import web
from pydantic import Field, TypeAdapter

from clip_index.content import Embeddings
from clip_index.reading.searcher import Searcher
from query_api.app_keys import QUERY_ENCODER, SERVED_INDEX, STAGES, WORKERS
from query_api.compat.html_gallery import HEADERS, HTML, LinkedImage, build_gallery, is_web_link
from query_api.contract.models import QueryText, Request
from query_api.contract.validation import read_parameters, read_parts
from query_api.errors import ApiError

NUM_IMAGES = 8
MAX_CANDIDATES = 4096
LINKS = TypeAdapter(list[str])
LINKS_SCHEMA = LINKS.json_schema(mode="serialization")


class TextQueryParameters(Request):
    """The query string of a search by text."""

    text_query: QueryText = Field(description="What to look for.")


class NoParameters(Request):
    """A query string that must be empty."""


async def text_url(request: web.Request) -> web.Response:
    """Answer the links of the best images for a text."""
    return _links(await _find_by_text(request, read_parameters(request, TextQueryParameters).text_query))


async def image_url(request: web.Request) -> web.Response:
    """Answer the links of the best images for an image."""
    return _links(await _find_by_image(request))


async def display_text(request: web.Request) -> web.Response:
    """Show the best images for a text."""
    text = read_parameters(request, TextQueryParameters).text_query
    return _page(text, await _find_by_text(request, text))


async def display_image(request: web.Request) -> web.Response:
    """Show the best images for an image."""
    return _page("Similar images", await _find_by_image(request))


async def _find_by_text(request: web.Request, text: str) -> list[LinkedImage]:
    with request[STAGES].measure("encode"):
        embedding = await request.app[QUERY_ENCODER].encode_text(text)
    return await _find(request, embedding)


async def _find_by_image(request: web.Request) -> list[LinkedImage]:
    read_parameters(request, NoParameters)
    if request.content_type != "multipart/form-data":
        message = f"send multipart/form-data with a field image_file, not {request.content_type}"
        raise ApiError("unsupported_media_type", message)
    parts = await read_parts(request)
    if "image_file" not in parts:
        raise ApiError("missing_field", "the form needs a field image_file")
    if len(parts) > 1:
        raise ApiError("unknown_field", "the form takes a field image_file and no other")
    with request[STAGES].measure("encode"):
        embedding = await request.app[QUERY_ENCODER].encode_image(parts["image_file"])
    return await _find(request, embedding)


async def _find(request: web.Request, embedding: Embeddings) -> list[LinkedImage]:
    served = request.app[SERVED_INDEX]
    with request[STAGES].measure("reload"):
        await served.reload()
    stages = request[STAGES]
    observed = served.searcher.observed_by(stages.search_observer)
    with stages.measure("search"):
        return await request.app[WORKERS].run(find_linked_images, observed, embedding)


def find_linked_images(searcher: Searcher, embedding: Embeddings) -> list[LinkedImage]:
    """Return the best images with a link, best first. Blocking."""
    k = NUM_IMAGES
    while True:
        [hits] = searcher.search(embedding[None], k=k, modality="image")
        links = [(hit, searcher.read(hit.location).facts.link) for hit in hits]
        found = [
            LinkedImage(hit.content_id, link, hit.score)
            for hit, link in links
            if link is not None and is_web_link(link)
        ]
        if len(found) >= NUM_IMAGES or len(hits) < k or k >= MAX_CANDIDATES:
            return found[:NUM_IMAGES]
        k *= 8


def _links(images: list[LinkedImage]) -> web.Response:
    body = LINKS.dump_json([image.link for image in images])
    return web.Response(body=body, content_type="application/json")


def _page(title: str, images: list[LinkedImage]) -> web.Response:
    return web.Response(text=build_gallery(title, images), content_type=HTML, headers=HEADERS)
