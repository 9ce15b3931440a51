"""Without keys, only requests to this service's own names are answered (`service/host_names.py`)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import lru_cache

from aiohttp import web

from query_api.errors import ApiError
from service.host_names import are_own_hosts

_MESSAGE = "this service does not answer to the name in Host; add it to CLIPTIDE_QUERY_API__HOST_NAMES"

_MAX_KNOWN = 256  # hosts whose verdict is kept: nearly all requests name the same one


def build_host_check(names: Collection[str]) -> Callable[[web.Request], None]:
    """Build the guard that refuses requests to names that are not this service's."""

    @lru_cache(_MAX_KNOWN)
    def is_own(host: str) -> bool:
        return are_own_hosts([host], names)

    def check_host(request: web.Request) -> None:
        if not all(map(is_own, _hosts_of(request))):
            raise ApiError("unknown_host", _MESSAGE)

    return check_host


def _hosts_of(request: web.Request) -> Iterator[str]:
    """Yield every host that the request names: in its headers, and in a whole address in its first line."""
    yield from request.headers.getall("Host", [])
    if "://" in request.raw_path.partition("?")[0]:
        yield request.url.raw_authority.rpartition("@")[2]
