"""`/livez` and `/readyz`: for the machinery around the service."""

from __future__ import annotations

import asyncio

import numpy as np
from aiohttp import web

from clip_index.canary import CANARY_PNG, CANARY_TEXT
from clip_index.content import Embeddings
from clip_index.errors import EncoderBroken
from query_api.app_keys import QUERY_ENCODER, SERVED_INDEX
from query_api.errors import ApiError
from query_api.models import StatusAnswer
from query_api.query_encoder import QueryEncoder

CANARY_TIMEOUT_SECONDS = 10.0
RETRY_AFTER = {"Retry-After": "1"}


async def get_livez(request: web.Request) -> web.Response:
    """Green while the loops that the service lives by run; red means: restart it."""
    if not request.app[SERVED_INDEX].is_reloading:
        raise ApiError("reload_stopped", "the reload loop has ended", headers=RETRY_AFTER)
    if not request.app[QUERY_ENCODER].is_running:
        raise ApiError("encoder_stopped", "the encoder loop has ended", headers=RETRY_AFTER)
    return _ok()


async def get_readyz(request: web.Request) -> web.Response:
    """Green when there is an index to search and the encoder gives sound embeddings; red means: wait."""
    served = request.app[SERVED_INDEX]
    if not served.has_searcher:
        why = served.last_failure or "not looked yet"
        raise ApiError("not_ready", f"there is no index to search yet: {why}", headers=RETRY_AFTER)
    try:
        await asyncio.wait_for(_probe(request.app[QUERY_ENCODER]), CANARY_TIMEOUT_SECONDS)
    except asyncio.TimeoutError:
        message = f"the encoder took longer than {CANARY_TIMEOUT_SECONDS:g} s"
        raise ApiError("not_ready", message, headers=RETRY_AFTER) from None
    except EncoderBroken as error:
        raise ApiError("not_ready", str(error), headers=RETRY_AFTER) from error
    return _ok()


async def _probe(encoder: QueryEncoder) -> None:
    text, image = await asyncio.gather(
        encoder.encode_text_afresh(CANARY_TEXT), encoder.encode_image(CANARY_PNG)
    )
    if not (_is_unit(text) and _is_unit(image)):
        raise ApiError(
            "not_ready", "the encoder gives embeddings that are no unit vectors", headers=RETRY_AFTER
        )


def _is_unit(embedding: Embeddings) -> bool:
    return bool(abs(float(np.linalg.norm(embedding)) - 1.0) < 1e-2)


def _ok() -> web.Response:
    return web.Response(text=StatusAnswer().model_dump_json(), content_type="application/json")
