"""`/livez` and `/readyz`, for whatever supervises the service."""

from __future__ import annotations

from aiohttp import web

from query_api.contract.models import StatusAnswer
from query_api.contract.route import Route
from query_api.encoding.canary_probe import CANARY_PROBE
from query_api.encoding.query_encoder import QUERY_ENCODER
from query_api.errors import ApiError
from query_api.http.json_answer import json_answer
from query_api.serving.served_index import SERVED_INDEX

RETRY_AFTER = {"Retry-After": "1"}


async def get_livez(request: web.Request) -> web.Response:
    """Answer 200 while the reload loop and the encoder loop run. A 503 means: restart the service."""
    if not request.app[SERVED_INDEX].is_reloading:
        raise ApiError("reload_stopped", "the reload loop has ended", headers=RETRY_AFTER)
    if not request.app[QUERY_ENCODER].is_running:
        raise ApiError("encoder_stopped", "the encoder loop has ended", headers=RETRY_AFTER)
    return _ok()


async def get_readyz(request: web.Request) -> web.Response:
    """Answer 200 when there is an index and the encoder gives sound embeddings. A 503 means: wait.

    Everybody may ask, so the answer names no path.
    """
    served = request.app[SERVED_INDEX]
    if not served.has_searcher:
        why = "the log says why" if served.last_failure else "the first reload is not done"
        raise ApiError("not_ready", f"there is no index to search yet: {why}", headers=RETRY_AFTER)
    if (complaint := await request.app[CANARY_PROBE].complaint()) is not None:
        raise ApiError("not_ready", complaint, headers=RETRY_AFTER)
    return _ok()


def _ok() -> web.Response:
    return json_answer(StatusAnswer().model_dump_json())


ROUTES = (
    Route(
        method="GET",
        path="/livez",
        handler=get_livez,
        access="open",
        summary="Is the process alive?",
        answers={200: StatusAnswer},
        codes=frozenset({"reload_stopped", "encoder_stopped"}),
    ),
    Route(
        method="GET",
        path="/readyz",
        handler=get_readyz,
        access="open",
        summary="Can the service answer searches?",
        answers={200: StatusAnswer},
        codes=frozenset({"not_ready"}),
    ),
)
