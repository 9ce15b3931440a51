"""The rate limit: how many requests one caller may send."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from query_api.errors import ApiError
from query_api.http.guards.access import CALLER

MAX_CALLERS = 10_000
_BUCKETS: web.RequestKey[TokenBuckets] = web.RequestKey("token_buckets")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One caller may send `per_second` requests in the long run, and `burst` requests at once."""

    per_second: float = 1000.0
    burst: int = 2000


class TokenBuckets:
    """A token bucket for each caller, full at first.

    Only the `MAX_CALLERS` callers seen last have one, so that memory is bounded.
    """

    def __init__(self, limit: RateLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # caller → tokens, and when

    def take(self, caller: str) -> float:
        """Take one token and return 0.0; if there is none, return the seconds until there is one."""
        now = self._clock()
        tokens, then = self._buckets.get(caller, (float(self._limit.burst), now))
        tokens = min(float(self._limit.burst), tokens + (now - then) * self._limit.per_second)
        has_token = tokens >= 1.0
        self._buckets[caller] = (tokens - has_token, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > MAX_CALLERS:
            self._buckets.popitem(last=False)
        return 0.0 if has_token else (1.0 - tokens) / self._limit.per_second

    def charge(self, caller: str, num_tokens: float) -> None:
        """Take tokens for a request that costs more than others and has been let in already.

        The caller may owe tokens afterwards, at most a full bucket; its next requests wait for them.
        """
        tokens, then = self._buckets.get(caller, (float(self._limit.burst), self._clock()))
        self._buckets[caller] = (max(-float(self._limit.burst), tokens - num_tokens), then)


def charge(request: web.Request, num_tokens: float) -> None:
    """Count a request as several, once it is known what it costs. Every request has cost one token before."""
    if num_tokens > 0:
        request[_BUCKETS].charge(request[CALLER], num_tokens)


REFUSALS = RateLimit(per_second=1.0, burst=30)  # answers 401, for each address


def build_refusal_limit(
    check: Callable[[web.Request], None], limit: RateLimit = REFUSALS
) -> Callable[[web.Request], None]:
    """Build the guard that checks keys, and answers 429 to addresses that send too many wrong ones, or none.

    A right key is let in from such an address too, because others may share it behind a proxy.
    """
    buckets = TokenBuckets(limit)

    def limit_refusals(request: web.Request) -> None:
        try:
            check(request)
        except ApiError as error:
            if error.status == 401:
                _take(buckets, str(request.remote))
            raise

    return limit_refusals


def _take(buckets: TokenBuckets, caller: str) -> None:
    wait_seconds = buckets.take(caller)
    if wait_seconds > 0.0:
        headers = {"Retry-After": str(math.ceil(wait_seconds))}
        raise ApiError("too_many_requests", "rate limit exceeded", headers=headers)


def build_rate_limit(limit: RateLimit) -> Callable[[web.Request], None]:
    """Build the guard that answers 429 to callers that exceed the limit.

    A caller is an API key; where the service has no keys, it is an address.
    """
    buckets = TokenBuckets(limit)

    def limit_rate(request: web.Request) -> None:
        _take(buckets, request[CALLER])
        request[_BUCKETS] = buckets

    return limit_rate
