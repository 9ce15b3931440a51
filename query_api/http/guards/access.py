"""Who may call what. This is checked before a request's body is read."""

from __future__ import annotations

from collections.abc import Callable, Collection

from aiohttp import web

from query_api.contract.route import ACCESS, Access
from query_api.errors import ApiError
from query_api.http.guards.api_keys import ApiKeys, digest_of

NEEDED_ACCESS: web.RequestKey[Access] = web.RequestKey("needed_access")
CALLER = web.RequestKey("caller", str)  # the digest of the caller's key, or an address


def build_access_check(keys: ApiKeys, allowed_origins: Collection[str] = ()) -> Callable[[web.Request], None]:
    """Build the guard that refuses requests whose key does not give access to their route.

    Where the service has no keys, it still refuses writes from web pages of other origins,
    because such a page could otherwise make a visitor's browser write.
    """

    def check_access(request: web.Request) -> None:
        digest = key_digest(request)
        access = request[NEEDED_ACCESS] = access_of(request)
        keys.check(digest, access)
        if digest is None and access == "write":
            _refuse_foreign_page(request, allowed_origins)
        request[CALLER] = digest.hex() if digest and keys.are_required else str(request.remote)

    return check_access


def _refuse_foreign_page(request: web.Request, allowed_origins: Collection[str]) -> None:
    """Refuse a write from a web page of another origin that is not allowed.

    Browsers say in `Sec-Fetch-Site` whether a page calls its own service. Older browsers send
    the page's `Origin`, which is compared with the scheme and the `Host` of the request. Other
    programs send neither, and may write.
    """
    origin = request.headers.get("Origin", "")
    site = request.headers.get("Sec-Fetch-Site")
    if site is None:
        own_origin = f"{request.scheme}://{request.headers.get('Host', '')}"
        is_own = not origin or origin.lower() == own_origin.lower()
    else:
        is_own = site in ("same-origin", "none")
    if not is_own and origin not in allowed_origins:
        raise ApiError("forbidden", "web pages of other origins may not write")


def access_of(request: web.Request) -> Access:
    """Return the access that the request's route needs.

    An unknown path needs no key, so that everybody gets its 404.
    """
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
