"""What every request leaves behind: its id, its stages, its count, its line in the log, and its trace."""

from __future__ import annotations

import random
import re

import structlog
from aiohttp import web

from query_api.contract.route import ENDLESS
from query_api.http.connections.stopping import STOPPING
from query_api.telemetry.metrics import METRICS
from query_api.telemetry.stages import HAS_ACCESS_LOG, REQUEST_ID, SLOW_SECONDS, STAGES, Stages
from query_api.telemetry.tracing import TRACE, TRACER, RequestTrace

log = structlog.get_logger()
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEALTH_CHECKS = frozenset({"/livez", "/readyz"})
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})


def begin_observation(request: web.Request) -> None:
    """Give the request an id, and begin to time it and its stages."""
    tracer = request.app[TRACER]
    stages = request[STAGES] = Stages(is_traced=tracer is not None)
    request[TRACE] = RequestTrace(
        tracer, stages, method=method_of(request), route=route_of(request), headers=request.headers
    )
    request[REQUEST_ID] = _request_id(request)


def end_observation(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the client the request's id and times, and count the answer."""
    stages = request[STAGES]
    if not response.prepared:
        headers = response.headers
        headers["X-Request-Id"] = request[REQUEST_ID]
        if request.app[STOPPING].has_begun:
            response.force_close()  # says "Connection: close", so that the client goes to another process
        if stages.seconds:
            headers["Server-Timing"] = stages.as_server_timing()
    _account(request, response.status, stages)


def _account(request: web.Request, status: int, stages: Stages) -> None:
    """Count an answer, log it, and trace it if traces are sent."""
    app, method, route = request.app, method_of(request), route_of(request)
    seconds = stages.now() - stages.began
    app[METRICS].count_answer((method, route, str(status)), seconds, stages.seconds)
    if app[HAS_ACCESS_LOG]:
        _log_access(request, status, seconds)
    if seconds - stages.seconds_of_client >= app[SLOW_SECONDS] and route not in app[ENDLESS]:
        _log_slow(request, status, seconds)
    if not _is_passed_health_check(route, status):
        request[TRACE].end(status)


def _request_id(request: web.Request) -> str:
    """Return the request id that the client sent, or a random one.

    Not `uuid4`: `os.urandom` releases the GIL, and the event loop would then wait behind the
    workers to get it back. Request ids need not be unguessable.
    """
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def _log_access(request: web.Request, status: int, seconds: float) -> None:
    """Write the route's pattern, because a path holds ids of contents and a query string holds texts.

    A health check that succeeds comes every few seconds and is written at the level debug.
    """
    route = route_of(request)
    write = log.debug if _is_passed_health_check(route, status) else log.info
    write(
        "request",
        method=method_of(request),
        route=route,
        status=status,
        seconds=round(seconds, 4),
        request_id=request[REQUEST_ID],
    )


def _is_passed_health_check(route: str, status: int) -> bool:
    return route in _HEALTH_CHECKS and status < 400


def _log_slow(request: web.Request, status: int, seconds: float) -> None:
    """Log a request that the service was slow to answer.

    The time in which its body arrived does not count, or clients that send slowly would fill the log.
    """
    log.warning(
        "slow request",
        route=route_of(request),
        status=status,
        seconds=round(seconds, 3),
        stages=request[STAGES].as_milliseconds(),
        request_id=request[REQUEST_ID],
    )


def route_of(request: web.Request) -> str:
    """Return the route's pattern. Not the path: clients could then create any number of metric labels."""
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unmatched"


def method_of(request: web.Request) -> str:
    return request.method if request.method in _METHODS else "other"
