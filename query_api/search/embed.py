"""`/v1/embed`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
from aiohttp import web

from clip_index.content import Embeddings
from clip_index.encoder.protocol import EncoderFingerprint
from query_api.app_keys import QUERY_ENCODER, STAGES, WORKERS
from query_api.contents.index_models import EncoderAnswer
from query_api.contract.validation import read_json_body
from query_api.embed_models import EmbedAnswer, EmbedContent, EmbedRequest
from query_api.encoding.query_encoder import QueryEncoder
from query_api.telemetry.stages import Stages


async def embed(request: web.Request) -> web.Response:
    """Encode texts and pictures as the consumer does; no index is needed for that."""
    stages, encoder = request[STAGES], request.app[QUERY_ENCODER]
    with stages.measure("read"):
        wanted = await read_json_body(request, EmbedRequest)
    with stages.measure("encode"):
        encoded = await asyncio.gather(*(_encode(encoder, content) for content in wanted.contents))
    text = await request.app[WORKERS].run(_answer, encoded, encoder.fingerprint, stages)
    return web.Response(text=text, content_type="application/json")


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
