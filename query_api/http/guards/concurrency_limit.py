"""The limit on requests that are worked on at once."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiohttp import web
from aiohttp.typedefs import Handler

from query_api.contract.route import ENDLESS
from query_api.errors import ApiError
from query_api.http.guards.access import CALLER, NEEDED_ACCESS
from query_api.http.guards.answer_deadline import AnswerDeadline
from query_api.serving.request_slots import REQUEST_SLOTS
from query_api.serving.workers import WORKERS
from query_api.telemetry.stages import STAGES

_STUCK = "every worker thread is stuck: the file system of the index may not answer"


class ConcurrencyLimit:
    """Lets requests queue while too many are worked on, and bounds both times."""

    def __init__(self, answer_seconds: float) -> None:
        self._answer_seconds = answer_seconds

    async def answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Hold a slot while the request is answered.

        The body has been received before, so that a client that sends it slowly does not hold a slot
        meanwhile.
        """
        if request[NEEDED_ACCESS] == "open" or _is_endless(request):
            return await handler(request)
        if request.app[WORKERS].are_stuck:  # refused at once, so that requests do not pile up
            raise ApiError("workers_stuck", _STUCK, headers={"Retry-After": "5"})
        slots, caller = request.app[REQUEST_SLOTS], request[CALLER]
        if slots.has_slot_for(caller):
            with slots.working(caller), AnswerDeadline(self._answer_seconds):
                return await handler(request)
        async with AsyncExitStack() as held:
            with request[STAGES].measure("queue"):
                await held.enter_async_context(slots.working_in_turn(caller))
            _refuse_the_departed(request)
            with AnswerDeadline(self._answer_seconds):
                return await handler(request)


def _refuse_the_departed(request: web.Request) -> None:
    """Spare the work for a client that has closed its connection while its request queued."""
    if request.transport is None or request.transport.is_closing():
        raise ApiError("overloaded", "the client left the queue")


def _is_endless(request: web.Request) -> bool:
    """Whether the answer is a stream. Streams have their own limit: they would hold slots for hours."""
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in request.app[ENDLESS]
