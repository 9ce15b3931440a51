"""`/text_url`, `/image_url`, `/display_text`, `/display_image`: the calls of an earlier image search service.

They answer the links of the best images, or show these images. Its clients work unchanged. Images
without an http(s) link are left out, because a browser could not load them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from aiohttp import web
from pydantic import Field, TypeAdapter

from clip_index.content import Embeddings
from query_api.compat.html_gallery import LinkedImage, build_gallery, is_web_link
from query_api.contract.error_codes import REFUSED_IMAGE, REFUSED_TEXT, SEARCHING
from query_api.contract.models import MAX_TEXT_CHARACTERS, FilePart, Request, picture_of_part
from query_api.contract.route import FORM, HTML, Described, Route
from query_api.encoding.query_encoder import QueryEncoder
from query_api.errors import ApiError
from query_api.http.bodies.reading import read_known_parameters, read_parts
from query_api.http.json_answer import json_answer
from query_api.search.offers import offer_rankings
from query_api.search.query_sample import QUERY_SAMPLE
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking_requests import RankingRequest
from query_api.search.recall_watch import BuildRankings
from query_api.serving.best_of_crops import search_crops
from query_api.serving.engine import Snapshot
from query_api.serving.served_index import ServedIndex
from query_api.serving.workers import WORKERS, Workers
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES, Stages

NUM_IMAGES = 8
MAX_CANDIDATES = 4096
GALLERY_HEADERS: web.AppKey[Mapping[str, str]] = web.AppKey("gallery_headers")
LINKS = TypeAdapter(list[str])
LINKS_SCHEMA = LINKS.json_schema(mode="serialization")


class TextQueryParameters(Request):
    """The query string of a search by text."""

    text_query: str = Field(
        max_length=MAX_TEXT_CHARACTERS, description="What to search for. A blank text finds nothing."
    )


class ImageQueryMultipart(Request):
    """A search by image, as a form. The document has no other parts, which are passed over."""

    image_file: FilePart


async def text_url(request: web.Request) -> web.Response:
    """Answer the links of the best images for a text."""
    return _links(await _search_of(request).by_text(_read_text(request)))


async def image_url(request: web.Request) -> web.Response:
    """Answer the links of the best images for an image."""
    return _links(await _search_of(request).by_image(await _read_image(request)))


async def display_text(request: web.Request) -> web.Response:
    """Show the best images for a text."""
    text = _read_text(request)
    return _page(request, text, await _search_of(request).by_text(text))


async def display_image(request: web.Request) -> web.Response:
    """Show the best images for an image."""
    return _page(request, "Similar images", await _search_of(request).by_image(await _read_image(request)))


def _read_text(request: web.Request) -> str:
    text = read_known_parameters(request, TextQueryParameters).text_query
    if text.strip():
        request.app[QUERY_SAMPLE].offer_text(text, modality="image")
    return text


async def _read_image(request: web.Request) -> bytes:
    if request.content_type != FORM:
        message = f"send multipart/form-data with a field image_file, not {request.content_type}"
        raise ApiError("unsupported_media_type", message)
    parts = await read_parts(request)
    if "image_file" not in parts:
        given = ", ".join(sorted(parts)) or "no field"
        raise ApiError("missing_field", f"the form needs a field image_file; it has {given}")
    request.app[QUERY_SAMPLE].offer_picture()
    return picture_of_part(parts["image_file"])


@dataclass(frozen=True, slots=True)
class LinkSearch:
    """The search that one request makes for images that have a link."""

    encoder: QueryEncoder
    served: ServedIndex
    workers: Workers
    stages: Stages
    offer: Callable[[Snapshot, BuildRankings], None]

    async def by_text(self, text: str) -> list[LinkedImage]:
        if not text.strip():
            return []
        with self.stages.measure("encode"):
            embedding = await self.encoder.encode_text(text)
        return await self._find(embedding[np.newaxis])

    async def by_image(self, image: bytes) -> list[LinkedImage]:
        with self.stages.measure("encode"):
            crops = await self.encoder.encode_content(image)
        return await self._find(crops)

    async def _find(self, crops: Embeddings) -> list[LinkedImage]:
        with self.stages.measure("reload"):
            await self.served.reload_for_request()
        searcher = self.served.searcher
        observed = searcher.observed_by(self.stages.search_observer)
        with self.stages.measure("search"):
            found = await self.workers.run(find_linked_images, observed, crops)
        self.offer(searcher, lambda: [RankingRequest(QueryEmbedding.of_picture(crops), "image", NUM_IMAGES)])
        return found


def _search_of(request: web.Request) -> LinkSearch:
    offer = partial(offer_rankings, request)
    return LinkSearch(
        request[SERVED].encoder, request[SERVED].index, request.app[WORKERS], request[STAGES], offer
    )


def find_linked_images(searcher: Snapshot, crops: Embeddings) -> list[LinkedImage]:
    """Return the best images with a link, best first. `crops` is the query, (crops, dimension). Blocking."""
    k = NUM_IMAGES
    while True:
        hits = search_crops(searcher, crops, k=k, modality="image")
        contents = searcher.read_many([hit.location for hit in hits], ())
        found = [
            LinkedImage(hit.content_id, content.facts.link, hit.score)
            for hit, content in zip(hits, contents, strict=True)
            if content.facts.link is not None and is_web_link(content.facts.link)
        ]
        if len(found) >= NUM_IMAGES or len(hits) < k or k >= MAX_CANDIDATES:
            return found[:NUM_IMAGES]
        k *= 8


def _links(images: list[LinkedImage]) -> web.Response:
    return json_answer(LINKS.dump_json([image.link for image in images]))


def _page(request: web.Request, title: str, images: list[LinkedImage]) -> web.Response:
    headers = request.app[GALLERY_HEADERS]
    return web.Response(text=build_gallery(title, images), content_type=HTML, headers=headers)


BY_IMAGE: Mapping[str, Described] = {FORM: ImageQueryMultipart}

ROUTES = (
    Route(
        method="POST",
        path="/text_url",
        handler=text_url,
        access="read",
        summary="The links of the best images for a text.",
        answers={200: LINKS_SCHEMA},
        parameters=TextQueryParameters,
        codes=SEARCHING | REFUSED_TEXT,
    ),
    Route(
        method="POST",
        path="/image_url",
        handler=image_url,
        access="read",
        summary="The links of the best images for an image.",
        answers={200: LINKS_SCHEMA},
        bodies=BY_IMAGE,
        codes=SEARCHING | REFUSED_IMAGE | {"bad_multipart"},
    ),
    Route(
        method="POST",
        path="/display_text",
        handler=display_text,
        access="read",
        summary="A page with the best images for a text.",
        answers={200: {"type": "string"}},
        answer_type=HTML,
        parameters=TextQueryParameters,
        codes=SEARCHING | REFUSED_TEXT,
    ),
    Route(
        method="POST",
        path="/display_image",
        handler=display_image,
        access="read",
        summary="A page with the best images for an image.",
        answers={200: {"type": "string"}},
        answer_type=HTML,
        bodies=BY_IMAGE,
        codes=SEARCHING | REFUSED_IMAGE | {"bad_multipart"},
    ),
)
