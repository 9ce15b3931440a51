"""`/mv_retrieval/v0.1/…`: the calls of a multi-modal retrieval service, for its clients as they are.

Their text and image ids are separate name spaces. The text `1` is the content `text:1` here, the
image `1` is `image:1`; contents from elsewhere answer by their own content id. Bodies come
without a Content-Type. Whatever was added through any process is found by the next call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated

from aiohttp import web
from pydantic import Field, StringConstraints

from clip_index.content import MODALITIES, Embeddings, Modality
from clip_index.reading.searcher import Searcher
from clip_index.reading.snapshot import Hit
from query_api.app_keys import QUERY_ENCODER, SERVED_INDEX, STAGES, UPLOADS, WORKERS
from query_api.contract.models import MAX_K, Answer, Request
from query_api.contract.validation import read_body, read_parameters
from query_api.errors import ApiError
from query_api.recommend.models import RecommendRequest
from query_api.recommend.recommendation import find_owner_interests, recommend_by_interests
from query_api.search.retrieval import without_owner
from query_api.uploads.models import Name, UploadRequest
from query_api.uploads.reading import build_event, text_from_bytes
from query_api.uploads.routes import MESSAGES, publish_event, wait_for_fate
from schemas.events import ImageContent, TextContent

SOURCE = "mv_retrieval"
SEARCHABLE_WITHIN_SECONDS = 30.0

Id = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class AddParameters(Request):
    """The query string of `add_content`."""

    id: Id = Field(description="Texts and images are numbered apart.")
    type: Modality
    user: Name | None = Field(default=None, description="Who uploaded it.")


class RetrieveParameters(Request):
    """The query string of `retrieve_contents`."""

    k: int = Field(default=10, ge=1, description=f"At most {MAX_K} contents of each modality are answered.")
    type: Modality
    user: Name | None = Field(default=None, description="Whose own contents are left out.")


class RecommendParameters(Request):
    """The query string of `recommend_contents`."""

    k: int = Field(default=10, ge=1, description=f"At most {MAX_K} contents of each modality are answered.")
    user: Name | None = Field(
        default=None, description="Whose interests decide; the own contents are left out."
    )


class AddedAnswer(Answer):
    msg: str
    time: float = Field(description="Seconds until the content was searchable.")


class RankedContents(Answer):
    contents: list[str] = Field(description="Ids, best first.")
    scores: list[float] = Field(description="Cosine similarities, in the same order.")


class RetrievedAnswer(Answer):
    """The best texts and the best images."""

    text: RankedContents
    image: RankedContents


class RecommendedAnswer(Answer):
    """What the interests lead to that the user's texts show, and those that the images do."""

    text: RetrievedAnswer
    image: RetrievedAnswer


async def add_content(request: web.Request) -> web.Response:
    """Publish the content and answer when it is searchable."""
    began = time.perf_counter()
    request.app[UPLOADS].require_publisher()
    parameters = read_parameters(request, AddParameters)
    body = await read_body(request)
    content = TextContent(text_from_bytes(body)) if parameters.type == "text" else ImageContent(body)
    upload = UploadRequest(
        content_id=f"{parameters.type}:{parameters.id}", source=SOURCE, owner_id=parameters.user or None
    )
    event = build_event(upload, content)
    delivery = await publish_event(request, event)
    fate, _ = await wait_for_fate(request, event, delivery, SEARCHABLE_WITHIN_SECONDS)
    if fate == "set_aside":
        raise ApiError(fate, MESSAGES[fate])
    message = "added" if fate == "applied" else MESSAGES[fate]
    return _answer(AddedAnswer(msg=message, time=time.perf_counter() - began))


async def retrieve_contents(request: web.Request) -> web.Response:
    """Answer the contents nearest to a text or an image."""
    parameters = read_parameters(request, RetrieveParameters)
    body = await read_body(request)
    searcher = await _newest_searcher(request)
    encoder = request.app[QUERY_ENCODER]
    with request[STAGES].measure("encode"):
        if parameters.type == "text":
            embedding = await encoder.encode_text(text_from_bytes(body))
        else:
            embedding = await encoder.encode_image(body)
    k = min(parameters.k, MAX_K)
    return await _in_worker(request, lambda: retrieve(searcher, embedding, k, parameters.user or None))


async def recommend_contents(request: web.Request) -> web.Response:
    """Answer what others uploaded that fits a user's interests."""
    parameters = read_parameters(request, RecommendParameters)
    searcher = await _newest_searcher(request)
    k = min(parameters.k, MAX_K)
    return await _in_worker(request, lambda: recommend(searcher, k, parameters.user or None))


def retrieve(searcher: Searcher, embedding: Embeddings, k: int, user: str | None) -> RetrievedAnswer:
    """Rank the contents of everybody but the user, each modality by itself. Blocking."""
    others = without_owner(None, user)
    ranked = {}
    for modality in MODALITIES:
        [hits] = searcher.search(embedding[None], k=k, modality=modality, row_filter=others)
        ranked[modality] = _rank(hits, modality)
    return RetrievedAnswer(**ranked)


def recommend(searcher: Searcher, k: int, user: str | None) -> RecommendedAnswer:
    """Recommend by the interests of each modality of the user's uploads; without any, nothing. Blocking."""
    return RecommendedAnswer(**{seed: _recommend_by(seed, searcher, k, user) for seed in MODALITIES})


def _recommend_by(seed: Modality, searcher: Searcher, k: int, user: str | None) -> RetrievedAnswer:
    interests = find_owner_interests(searcher, user, [seed]) if user else []
    if not interests:
        return RetrievedAnswer(text=_rank([], "text"), image=_rank([], "image"))
    found = recommend_by_interests(searcher, interests, RecommendRequest(owner_id=user, k=k))
    return RetrievedAnswer(
        **{
            modality: _rank([one.hit for one in recommended], modality)
            for modality, recommended in found.items()
        }
    )


def _rank(hits: Sequence[Hit], modality: Modality) -> RankedContents:
    """Best score first, whichever interest pulled a hit in; ids as the client gave them."""
    ranked = sorted(hits, key=lambda hit: (-hit.score, hit.content_id))
    return RankedContents(
        contents=[hit.content_id.removeprefix(f"{modality}:") for hit in ranked],
        scores=[hit.score for hit in ranked],
    )


async def _newest_searcher(request: web.Request) -> Searcher:
    """What a client saw added is found, whichever process it was added through."""
    served = request.app[SERVED_INDEX]
    with request[STAGES].measure("reload"):
        await served.reload()
    return served.searcher.observed_by(request[STAGES].search_observer)


async def _in_worker(request: web.Request, search: Callable[[], Answer]) -> web.Response:
    with request[STAGES].measure("search"):
        answer = await request.app[WORKERS].run(search)
    return _answer(answer)


def _answer(answer: Answer) -> web.Response:
    return web.Response(text=answer.model_dump_json(), content_type="application/json")
