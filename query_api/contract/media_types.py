"""What is said to a body of a media type that a route does not take: which header to send."""

from __future__ import annotations

from collections.abc import Mapping

from query_api.errors import ApiError

JSON_HEADER = "Content-Type: application/json"
_OF_FORMS = "application/x-www-form-urlencoded"  # curl sends this with -d


def wrong_media_type(headers: Mapping[str, str], wanted: str = "application/json") -> ApiError:
    """Return the error for a request with these headers; `wanted` names what the route takes."""
    given = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    message = f"send {wanted}"
    if not given:
        message += f"; the request has no Content-Type: add the header '{JSON_HEADER}' if the body is JSON"
    elif given == _OF_FORMS:
        message += f", not a web form: add the header '{JSON_HEADER}' if the body is JSON (curl -H)"
    else:
        message += f", not {given}"
    return ApiError("unsupported_media_type", message)


def looks_like_json(body: bytes) -> bool:
    return body.lstrip()[:1] in (b"{", b"[")
