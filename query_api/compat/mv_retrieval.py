"""`/mv_retrieval/v0.1/…`: the calls of a multi-modal retrieval service, for its unchanged clients.

In that service texts and images have separate ids. So its text `1` is the content `text:1` here, and its
image `1` is `image:1`. Contents from elsewhere are answered under their own content id. Request bodies
come without a Content-Type. A call finds whatever was added before it, through whichever process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from aiohttp import web
from pydantic import Field, StringConstraints

from clip_index.content import MODALITIES, Embeddings, Modality, identity_of
from query_api.contract.error_codes import REFUSED_IMAGE, REFUSED_TEXT, SEARCHING, WRITING
from query_api.contract.models import MAX_K, Answer, Request, picture_of_part
from query_api.contract.route import BINARY, OCTETS, Route
from query_api.contract.utf8 import text_from_bytes
from query_api.errors import ApiError
from query_api.http.bodies.reading import read_body, read_known_parameters
from query_api.http.guards.access import CALLER
from query_api.http.guards.rate_limit import charge
from query_api.http.json_answer import json_answer
from query_api.recommend.interests import Interest
from query_api.recommend.models import RecommendRequest
from query_api.recommend.owner_interests import OWNER_INTERESTS, OwnerInterests
from query_api.recommend.recommendation import rankings_of_interests, recommend_by_interests
from query_api.recommend.routes import OWNER_TOKENS
from query_api.search.offers import offer_rankings
from query_api.search.query_sample import QUERY_SAMPLE
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking_requests import RankingRequest, without_owner
from query_api.serving.best_of_crops import search_crops
from query_api.serving.engine import Hit, Snapshot
from query_api.serving.request_slots import REQUEST_SLOTS
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES
from query_api.telemetry.tracing import TRACE
from query_api.uploads.fate import MESSAGES, fate_of, searcher_covering
from query_api.uploads.models import Name, UploadRequest
from query_api.uploads.publishing import EVENT_PUBLISHER, publish_event
from query_api.uploads.reading import build_event
from schemas.events import ImageContent, TextContent

SOURCE = "mv_retrieval"
SEARCHABLE_WITHIN_SECONDS = 30.0
MAX_CANDIDATES = 8192  # hits that are looked through for copies

Id = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class AddParameters(Request):
    """The query string of `add_content`."""

    id: Id = Field(description="Texts and images have separate ids.")
    type: Modality
    user: Name | None = Field(default=None, description="Who uploaded it.")


class RetrieveParameters(Request):
    """The query string of `retrieve_contents`."""

    k: int = Field(default=10, ge=0, description=f"At most {MAX_K} contents of each modality are answered.")
    type: Modality
    user: Name | None = Field(default=None, description="The user whose own contents are left out.")


class RecommendParameters(Request):
    """The query string of `recommend_contents`."""

    k: int = Field(default=10, ge=0, description=f"At most {MAX_K} contents of each modality are answered.")
    user: Name | None = Field(
        default=None, description="The user whose interests decide. The user's own contents are left out."
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
    """Contents that fit the interests shown by the user's texts, and those shown by the user's images."""

    text: RetrievedAnswer
    image: RetrievedAnswer


async def add_content(request: web.Request) -> web.Response:
    """Publish the content, and answer when it is searchable."""
    began = time.perf_counter()
    app, stages = request.app, request[STAGES]
    app[EVENT_PUBLISHER].require_publisher()
    parameters = read_known_parameters(request, AddParameters)
    body = await read_body(request)
    content = (
        TextContent(text_from_bytes(body))
        if parameters.type == "text"
        else ImageContent(picture_of_part(body))
    )
    upload = UploadRequest(
        content_id=f"{parameters.type}:{parameters.id}", source=SOURCE, owner_id=parameters.user or None
    )
    event = build_event(upload, content)
    delivery = await publish_event(
        event,
        stages,
        trace=request[TRACE],
        encoder=request[SERVED].encoder,
        publisher=app[EVENT_PUBLISHER],
    )
    with stages.measure("wait"):
        searcher = await searcher_covering(
            delivery,
            SEARCHABLE_WITHIN_SECONDS,
            served=request[SERVED].index,
            slots=app[REQUEST_SLOTS].of(request[CALLER]),
        )
    fate = await app[WORKERS].run(fate_of, searcher, event, delivery)
    if fate == "set_aside":
        raise ApiError(fate, MESSAGES[fate])
    message = "added" if fate == "applied" else MESSAGES[fate]
    return json_answer(AddedAnswer(msg=message, time=time.perf_counter() - began).model_dump_json())


async def retrieve_contents(request: web.Request) -> web.Response:
    """Answer the contents nearest to a text or an image."""
    parameters = read_known_parameters(request, RetrieveParameters)
    body = await read_body(request)
    searcher = await _newest_searcher(request)
    crops = await _embed(request, body, parameters.type)
    k = 0 if crops is None else min(parameters.k, MAX_K)
    if crops is None or k == 0:
        return json_answer(_nothing().model_dump_json())
    user, observed = parameters.user or None, searcher.observed_by(request[STAGES].search_observer)
    answer = await _in_worker(request, lambda: retrieve(observed, crops, k=k, user=user))
    offer_rankings(request, searcher, lambda: _rankings_of_query(crops, k=k, user=user))
    return answer


async def _embed(request: web.Request, body: bytes, modality: Modality) -> Embeddings | None:
    """Encode a query, (crops, dimension). A blank text means nothing, so it has no embedding."""
    encoder = request[SERVED].encoder
    with request[STAGES].measure("encode"):
        if modality == "image":
            request.app[QUERY_SAMPLE].offer_picture()
            return await encoder.encode_content(picture_of_part(body))
        text = text_from_bytes(body)
        if not text.strip():
            return None
        embedding = await encoder.encode_text(text)
        request.app[QUERY_SAMPLE].offer_text(text)
        return embedding[np.newaxis]


async def recommend_contents(request: web.Request) -> web.Response:
    """Answer what others uploaded that fits a user's interests."""
    parameters = read_known_parameters(request, RecommendParameters)
    charge(request, OWNER_TOKENS)
    searcher = await _newest_searcher(request)
    k = min(parameters.k, MAX_K)
    known, user = request.app[OWNER_INTERESTS], parameters.user or None
    observed = searcher.observed_by(request[STAGES].search_observer)
    answer = await _in_worker(request, lambda: recommend(observed, known, k=k, user=user))
    if user and k:
        offer_rankings(request, searcher, lambda: _rankings_of_user(searcher, known, k=k, user=user))
    return answer


def retrieve(searcher: Snapshot, crops: Embeddings, *, k: int, user: str | None) -> RetrievedAnswer:
    """Rank the contents of everybody except the user, each modality by itself. Blocking."""
    found = {modality: _retrieve_one(searcher, crops, modality, k=k, user=user) for modality in MODALITIES}
    return RetrievedAnswer(**{modality: _rank(hits, modality) for modality, hits in found.items()})


def _rankings_of_query(crops: Embeddings, *, k: int, user: str | None) -> list[RankingRequest]:
    """Return the rankings that `retrieve` asks for at first."""
    query, others = QueryEmbedding.of_picture(crops), without_owner(None, user)
    return [RankingRequest(query, modality, k + 1, row_filter=others) for modality in MODALITIES]


def _retrieve_one(
    searcher: Snapshot, crops: Embeddings, modality: Modality, *, k: int, user: str | None
) -> list[Hit]:
    """Return the k best hits of a modality. A content that its user uploaded several times is one hit.

    The search is widened until every copy of the last hit is among those found, because the latest stays.
    """
    others, num_wanted = without_owner(None, user), k + 1
    while True:
        hits = search_crops(searcher, crops, k=num_wanted, modality=modality, row_filter=others)
        latest = latest_of_copies(searcher, hits)
        has_all = len(latest) > k and hits[-1].score < latest[k - 1].score
        if has_all or len(hits) < num_wanted or num_wanted >= MAX_CANDIDATES:
            return latest[:k]
        num_wanted *= 2


def latest_of_copies(searcher: Snapshot, hits: Sequence[Hit]) -> list[Hit]:
    """Keep, of contents with one owner and one embedding, the one that was uploaded last. Blocking."""
    contents = searcher.read_many([hit.location for hit in hits], ())
    latest: dict[object, tuple[tuple[int, int], Hit]] = {}
    for hit, content in zip(hits, contents, strict=True):
        owner = content.facts.owner_id
        copied = (owner, identity_of(searcher.embeddings(hit.location))) if owner else hit.content_id
        uploaded = (content.facts.occurred_at_ms, content.offset)
        if copied not in latest or latest[copied][0] < uploaded:
            latest[copied] = (uploaded, hit)
    return [hit for _, hit in latest.values()]


def recommend(searcher: Snapshot, known: OwnerInterests, *, k: int, user: str | None) -> RecommendedAnswer:
    """Recommend by the interests that the user's texts show, and by those that the images show. Blocking."""
    interests = {seed: known.find(searcher, user, [seed]) if user and k else () for seed in MODALITIES}
    return RecommendedAnswer(
        **{seed: _recommend_by(searcher, interests[seed], k=k, user=user) for seed in MODALITIES}
    )


def _rankings_of_user(
    searcher: Snapshot, known: OwnerInterests, *, k: int, user: str
) -> list[RankingRequest]:
    """Return the rankings that `recommend` asks for. Blocking."""
    wanted = RecommendRequest(owner_id=user, k=k)
    return [
        one
        for seed in MODALITIES
        for one in rankings_of_interests(known.find(searcher, user, [seed]), wanted)
    ]


def _recommend_by(
    searcher: Snapshot, interests: Sequence[Interest], *, k: int, user: str | None
) -> RetrievedAnswer:
    if not interests:
        return _nothing()
    found = recommend_by_interests(searcher, interests, RecommendRequest(owner_id=user, k=k))
    return RetrievedAnswer(
        **{
            modality: _rank(latest_of_copies(searcher, [one.hit for one in recommended]), modality)
            for modality, recommended in found.items()
        }
    )


def _nothing() -> RetrievedAnswer:
    return RetrievedAnswer(text=_rank([], "text"), image=_rank([], "image"))


def _rank(hits: Sequence[Hit], modality: Modality) -> RankedContents:
    """Order by score, whichever interest a hit fits; ids are those that the client gave."""
    ranked = sorted(hits, key=lambda hit: (-hit.score, hit.content_id))
    return RankedContents(
        contents=[hit.content_id.removeprefix(f"{modality}:") for hit in ranked],
        scores=[hit.score for hit in ranked],
    )


async def _newest_searcher(request: web.Request) -> Snapshot:
    """Reload first, so that the client finds what it has added through any process."""
    served = request[SERVED].index
    with request[STAGES].measure("reload"):
        await served.reload_for_request()
    return served.searcher


async def _in_worker(request: web.Request, search: Callable[[], Answer]) -> web.Response:
    with request[STAGES].measure("search"):
        answer = await request.app[WORKERS].run(search)
    return json_answer(answer.model_dump_json())


ROUTES = (
    Route(
        method="POST",
        path="/mv_retrieval/v0.1/add_content",
        handler=add_content,
        access="write",
        summary="Upload a text or an image; answered when it is searchable.",
        answers={200: AddedAnswer},
        parameters=AddParameters,
        bodies={OCTETS: BINARY},
        codes=WRITING - {"superseded"} | REFUSED_TEXT | REFUSED_IMAGE,
    ),
    Route(
        method="POST",
        path="/mv_retrieval/v0.1/retrieve_contents",
        handler=retrieve_contents,
        access="read",
        summary="The contents nearest to a text or an image.",
        answers={200: RetrievedAnswer},
        parameters=RetrieveParameters,
        bodies={OCTETS: BINARY},
        codes=SEARCHING | REFUSED_TEXT | REFUSED_IMAGE,
    ),
    Route(
        method="POST",
        path="/mv_retrieval/v0.1/recommend_contents",
        handler=recommend_contents,
        access="read",
        summary="What others uploaded that fits the interests of a user's uploads.",
        answers={200: RecommendedAnswer},
        parameters=RecommendParameters,
        codes=SEARCHING,
    ),
)
