"""Who may call what: checked before a request's body is read."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from query_api.contract.route import ACCESS, Access
from query_api.errors import ApiError
from query_api.http.api_keys import ApiKeys, digest_of

NEEDED_ACCESS: web.RequestKey[Access] = web.RequestKey("needed_access")


CALLER = web.RequestKey("caller", str)  # the digest of a known key, or an address


def build_access_check(keys: ApiKeys, allowed_origins: Collection[str] = ()) -> Middleware:
    """Build the middleware that lets a request through to a route that its key gives access to.

    Where no key is needed, pages of other origins could still make a browser write; they may not.
    """

    @web.middleware
    async def check_access(request: web.Request, handler: Handler) -> web.StreamResponse:
        digest = key_digest(request)
        access = request[NEEDED_ACCESS] = access_of(request)
        keys.check(digest, access)
        if digest is None and access == "write":
            _refuse_foreign_page(request, allowed_origins)
        is_known = digest is not None and keys.are_required
        request[CALLER] = digest.hex() if is_known and digest else str(request.remote)
        return await handler(request)

    return check_access


def _refuse_foreign_page(request: web.Request, allowed_origins: Collection[str]) -> None:
    """Browsers say whether a page calls its own service; older ones name its origin. Programs say neither."""
    origin = request.headers.get("Origin", "")
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        is_own = not origin or origin.partition("://")[2].lower() == request.headers.get("Host", "").lower()
    else:
        is_own = site in ("same-origin", "none")
    if not is_own and origin not in allowed_origins:
        raise ApiError("forbidden", "pages of another origin may not write")


def access_of(request: web.Request) -> Access:
    """Return what the request's route needs; what is no route is refused to everybody alike."""
    if request.match_info.http_exception is not None:
        return "open"
    resource = request.match_info.route.resource
    method = "GET" if request.method == "HEAD" else request.method
    return request.app[ACCESS].get((method, resource.canonical if resource else ""), "write")


def key_digest(request: web.Request) -> bytes | None:
    """Return the SHA-256 digest of the key that a request carries, None without one."""
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    key = credentials.strip() if scheme.lower() == "bearer" else request.headers.get("api-key", "")
    return digest_of(key) if key else None
