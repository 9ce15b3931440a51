"""Every error gets the one JSON shape."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from aiohttp import web

from clip_index.errors import IndexUnavailable
from query_api.contract.models import ErrorAnswer, ErrorBody
from query_api.contract.validation import shortened
from query_api.contract.wrong_addresses import no_such_route, wrong_method
from query_api.errors import ApiError, ErrorDetail
from query_api.http.json_answer import json_answer
from query_api.http.observation import route_of
from query_api.telemetry.stages import REQUEST_ID

log = structlog.get_logger()
_MAX_MESSAGE_CHARACTERS = 1000
_MAX_DETAILS_CHARACTERS = 4000
_BODY_IS_UNREAD = (401, 403, 408, 413, 429)
_CODES = {
    400: "bad_request",
    404: "unknown_route",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


def answer_error(request: web.Request, error: Exception) -> web.Response:
    """Answer whatever a guard or a handler raised. What nobody foresaw is a 500, and is logged."""
    if isinstance(error, ApiError):
        return _error_response(request, error)
    if isinstance(error, web.HTTPException):
        found = _from_http_exception(error, request.method, request.path)
        return _error_response(request, found, allow=error.headers.get("Allow"))
    if isinstance(error, IndexUnavailable):
        log.warning("the index does not answer", request_id=request[REQUEST_ID], error=str(error))
        message = "the search engine does not answer; ask again in some seconds"
        return _error_response(request, ApiError("reload_stopped", message, headers={"Retry-After": "5"}))
    log.error("request failed", request_id=request[REQUEST_ID], route=route_of(request), exc_info=error)
    return _error_response(
        request, ApiError("internal", "internal error; find it in the log by its request id")
    )


def _from_http_exception(error: web.HTTPException, method: str, path: str) -> ApiError:
    """Say it in our words where aiohttp has one sentence for every service."""
    message = error.reason
    if error.status == 404:
        message = no_such_route(path)
    elif error.status == 405:
        message = wrong_method(error.headers.get("Allow", ""), method, path)
    return ApiError(_CODES.get(error.status, "bad_request"), message)


def _error_response(request: web.Request, error: ApiError, allow: str | None = None) -> web.Response:
    body = ErrorBody(
        code=error.code,
        message=shortened(error.message, _MAX_MESSAGE_CHARACTERS),
        request_id=request[REQUEST_ID],
        details=_first_details(error.details) or None,
    )
    headers = dict(error.headers) | ({"Allow": allow} if allow else {})
    text = ErrorAnswer(error=body).model_dump_json(exclude_none=True)
    response = json_answer(text, status=error.status, headers=headers)
    if error.status in _BODY_IS_UNREAD:
        response.force_close()
    return response


def _first_details(details: Sequence[ErrorDetail]) -> list[ErrorDetail]:
    """Take details as long as the answer stays small: a client can ask for thousands of them."""
    kept: list[ErrorDetail] = []
    num_characters = 0
    for detail in details:
        num_characters += sum(len(f"{name}{value}") for name, value in detail.items())
        if num_characters > _MAX_DETAILS_CHARACTERS:
            break
        kept.append(detail)
    return kept
