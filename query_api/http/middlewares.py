"""What happens to every request: it gets an id, it is timed, and its error gets the one JSON shape."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from query_api.contract.models import ErrorAnswer, ErrorBody
from query_api.contract.route import ENDLESS
from query_api.contract.validation import shortened
from query_api.contract.wrong_addresses import no_such_route, wrong_method
from query_api.errors import ApiError, ErrorDetail
from query_api.http.json_answer import json_answer
from query_api.http.stopping import STOPPING
from query_api.telemetry.metrics import METRICS
from query_api.telemetry.stages import HAS_ACCESS_LOG, REQUEST_ID, SLOW_SECONDS, STAGES, Stages
from query_api.telemetry.tracing import TRACE, TRACER, RequestTrace

log = structlog.get_logger()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MAX_MESSAGE_CHARACTERS = 1000
_MAX_DETAILS_CHARACTERS = 4000
_BODY_IS_UNREAD = (401, 403, 408, 413, 429)
_HEALTH_CHECKS = frozenset({"/livez", "/readyz"})
_CODES = {
    400: "bad_request",
    404: "unknown_route",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request an id, time it and its stages, and count its answer."""
    tracer = request.app[TRACER]
    stages = request[STAGES] = Stages(is_traced=tracer is not None)
    request[TRACE] = RequestTrace(
        tracer, stages, method=_method(request), route=_route(request), headers=request.headers
    )
    request_id = request[REQUEST_ID] = _request_id(request)
    response = await handler(request)
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
        if request.app[STOPPING].has_begun:
            response.force_close()  # says "Connection: close", so that the client goes to another process
        if stages.seconds:
            response.headers["Server-Timing"] = stages.as_server_timing()
    _account(request, response.status, stages)
    return response


def _account(request: web.Request, status: int, stages: Stages) -> None:
    """Count an answer, log it, and trace it if traces are sent."""
    app, method, route = request.app, _method(request), _route(request)
    seconds = stages.now() - stages.began
    app[METRICS].count_answer((method, route, str(status)), seconds, stages.seconds)
    if app[HAS_ACCESS_LOG]:
        _log_access(request, status, seconds)
    if seconds >= app[SLOW_SECONDS] and route not in app[ENDLESS]:
        _log_slow(request, status, seconds)
    if not _is_passed_health_check(route, status):
        request[TRACE].end(status)


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiError as error:
        return _error_response(request, error)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        found = _from_http_exception(error, request.method, request.path)
        return _error_response(request, found, allow=error.headers.get("Allow"))
    except Exception:
        log.exception("request failed", request_id=request[REQUEST_ID], route=_route(request))
        return _error_response(
            request, ApiError("internal", "internal error; find it in the log by its request id")
        )


def _request_id(request: web.Request) -> str:
    """Return the request id that the client sent, or a random one.

    Not `uuid4`: `os.urandom` releases the GIL, and the event loop would then wait behind the
    workers to get it back. Request ids need not be unguessable.
    """
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


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


def _log_access(request: web.Request, status: int, seconds: float) -> None:
    """Write the route's pattern, because a path holds ids of contents and a query string holds texts.

    A health check that succeeds comes every few seconds and is written at the level debug.
    """
    route = _route(request)
    write = log.debug if _is_passed_health_check(route, status) else log.info
    write(
        "request",
        method=_method(request),
        route=route,
        status=status,
        seconds=round(seconds, 4),
        request_id=request[REQUEST_ID],
    )


def _is_passed_health_check(route: str, status: int) -> bool:
    return route in _HEALTH_CHECKS and status < 400


def _log_slow(request: web.Request, status: int, seconds: float) -> None:
    log.warning(
        "slow request",
        route=_route(request),
        status=status,
        seconds=round(seconds, 3),
        stages=request[STAGES].as_milliseconds(),
        request_id=request[REQUEST_ID],
    )


def _route(request: web.Request) -> str:
    """Return the route's pattern. Not the path: clients could then create any number of metric labels."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unmatched"


def _method(request: web.Request) -> str:
    return request.method if request.method in {"GET", "HEAD", "POST", "DELETE", "OPTIONS"} else "other"
