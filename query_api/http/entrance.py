"""The one way into the service: every request passes the same guards, in the same order.

All of it is one middleware, because each middleware costs a call of its own for every request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from query_api.http.bodies.receiver import BodyReceiver
from query_api.http.error_answers import answer_error
from query_api.http.guards.concurrency_limit import ConcurrencyLimit
from query_api.http.observation import begin_observation, end_observation

Guard: TypeAlias = Callable[[web.Request], None]
"""Looks at a request before its body is received, and raises `ApiError` to refuse it."""


class AroundAnswer(Protocol):
    """Answers a request by its handler, with what the handler needs at hand."""

    def __call__(self, request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]: ...


@dataclass(frozen=True, slots=True)
class Entrance:
    """What a request passes. Cheap refusals come before the body is received, and the limit behind it."""

    guards: Sequence[Guard]
    receiver: BodyReceiver
    limit: ConcurrencyLimit
    around_answer: AroundAnswer

    def middleware(self) -> Middleware:
        """Build the middleware. It also times, counts and logs every request, and answers its errors."""

        @web.middleware
        async def enter(request: web.Request, handler: Handler) -> web.StreamResponse:
            begin_observation(request)
            try:
                response = await self._answer(request, handler)
            except Exception as error:
                if isinstance(error, web.HTTPException) and error.status < 400:
                    raise
                response = answer_error(request, error)
            end_observation(request, response)
            return response

        return enter

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        for guard in self.guards:
            guard(request)
        if self.receiver.has_body(request):
            await self.receiver.receive(request)
        return await self.limit.answer(request, partial(self.around_answer, handler=handler))
