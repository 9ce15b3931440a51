"""`/v1/embed`: contents become embeddings, without a search."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
from aiohttp import web
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import Self

from clip_index.content import Embeddings
from clip_index.encoder.protocol import EncoderFingerprint
from query_api.answers.snapshot import EncoderAnswer
from query_api.contract.error_codes import REFUSED_IMAGE, REFUSED_TEXT
from query_api.contract.models import Answer, Base64Bytes, QueryText, Request, Timings
from query_api.contract.route import JSON, Examples, Route
from query_api.contract.schema_rules import exactly_one_of
from query_api.encoding.query_encoder import QueryEncoder
from query_api.http.bodies.reading import read_json_body
from query_api.http.guards.rate_limit import charge
from query_api.http.json_answer import json_answer
from query_api.search.request.request_costs import count_windows, refuse_costly
from query_api.search.request.tokens import WINDOWS_OF_A_TOKEN
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES, Stages

MAX_CONTENTS = 64


class EmbedContent(Request):
    """Exactly one of `text` and `image`."""

    model_config = ConfigDict(json_schema_extra=exactly_one_of(("text", "image")))

    text: QueryText | None = None
    image: Base64Bytes | None = Field(
        default=None, description="A JPEG, PNG, WebP, GIF, AVIF, TIFF, BMP, ICO or JPEG 2000 file."
    )

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if (self.text is None) == (self.image is None):
            raise PydanticCustomError("one_query_required", "needs exactly one of text and image")
        return self


class EmbedRequest(Request):
    contents: list[EmbedContent] = Field(
        min_length=1,
        max_length=MAX_CONTENTS,
        fail_fast=True,
        description="Contents to encode together, and to answer in this order.",
    )

    @model_validator(mode="after")
    def _has_a_bounded_cost(self) -> Self:
        refuse_costly(self.contents)
        return self


class EmbedAnswer(Answer):
    embeddings: list[list[list[float]]] = Field(
        description="For each content the unit vectors that an index would hold of it: one vector of a "
        "picture (one of each crop, if its sides differ by more than 1.8), and one of each window of a text. "
        "Most texts have one window."
    )
    encoder: EncoderAnswer
    timings: Timings


async def embed(request: web.Request) -> web.Response:
    """Encode texts and pictures as the consumer does. This needs no index."""
    stages, encoder = request[STAGES], request[SERVED].encoder
    with stages.measure("read"):
        wanted = await read_json_body(request, EmbedRequest)
        charge(request, _surplus_of(wanted.contents))
    with stages.measure("encode"):
        encoded = await asyncio.gather(*(_encode(encoder, content) for content in wanted.contents))
    text = await request.app[WORKERS].run(_answer, encoded, encoder.fingerprint, stages)
    return json_answer(text)


def _surplus_of(contents: Sequence[EmbedContent]) -> float:
    """Return the tokens of the rate limit that embedding costs beyond a plain search."""
    num_windows = sum(count_windows(content.text or "") for content in contents)
    return len(contents) - 1 + num_windows // WINDOWS_OF_A_TOKEN


async def _encode(encoder: QueryEncoder, content: EmbedContent) -> Embeddings:
    if content.text is not None:
        return await encoder.encode_content(content.text)
    return await encoder.encode_content(content.image or b"")


def _answer(encoded: Sequence[Embeddings], fingerprint: EncoderFingerprint, stages: Stages) -> str:
    with stages.measure("columns"):
        stored = [rows.astype(np.float16).tolist() for rows in encoded]  # as segments hold them
    return EmbedAnswer(
        embeddings=stored, encoder=EncoderAnswer.of(fingerprint), timings=stages.as_milliseconds()
    ).model_dump_json()


EMBEDDINGS: Examples = MappingProxyType(
    {"two texts": {"contents": [{"text": "a red dress"}, {"text": "a blue hat"}]}}
)

ROUTES = (
    Route(
        method="POST",
        path="/v1/embed",
        handler=embed,
        access="read",
        summary="The embeddings of texts and images, as an index would hold them.",
        answers={200: EmbedAnswer},
        bodies={JSON: EmbedRequest},
        examples=EMBEDDINGS,
        codes=REFUSED_TEXT | REFUSED_IMAGE,
    ),
)
