"""Bodies are received whole before any work begins. Their size and the time to receive them are bounded."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, web

from query_api.contract.route import METHODS_WITH_BODY
from query_api.errors import ApiError
from query_api.http.bodies.inflation import ENCODINGS
from query_api.http.bodies.reading import content_encoding
from query_api.telemetry.stages import STAGES

_MAX_CONTENT_TYPE = 512  # Python's parser of this header takes half a second for 8 kB of semicolons
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyReceiver:
    """Receives the bodies of requests. Handlers get them by `bodies.reading.read_body`."""

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds

    def has_body(self, request: web.Request) -> bool:
        """Whether there is a body to receive; `ApiError` if its type cannot be read in a short time."""
        if len(request.headers.get("Content-Type", "")) > _MAX_CONTENT_TYPE:
            raise ApiError("bad_request", "the header Content-Type is too long")
        has_body = request.method in METHODS_WITH_BODY and request.body_exists
        return has_body and request.match_info.http_exception is None

    async def receive(self, request: web.Request) -> None:
        stages = request[STAGES]
        began = stages.now()
        try:
            with stages.measure("read"):
                await _read_body(request, self._timeout_seconds)
        finally:
            stages.seconds_of_client = stages.now() - began


async def _read_body(request: web.Request, timeout_seconds: float) -> None:
    """Receive the body as it is sent; raise an error if it is too large, too slow or cut off."""
    if (request.content_length or 0) > request.client_max_size:
        raise _too_large(request)
    if content_encoding(request) not in ("identity", *ENCODINGS):
        message = "unknown Content-Encoding; use gzip or deflate, or send the body without one"
        raise ApiError("bad_body", message)
    if request.headers.get("Expect", "").lower() == "100-continue":
        _let_it_come(request)
    try:
        if request.content.is_eof():  # it came together with the headers: no timer is needed
            await request.read()
        else:
            await asyncio.wait_for(request.read(), timeout_seconds)
    except web.HTTPRequestEntityTooLarge:  # its length was not told beforehand
        raise _too_large(request) from None
    except asyncio.TimeoutError:
        message = f"the request did not arrive within {timeout_seconds:g} s"
        raise ApiError("request_timeout", message) from None
    except web.RequestPayloadError:
        raise ApiError("bad_body", "the body cannot be decoded by its Content-Encoding") from None
    except ConnectionError:
        raise ApiError("bad_body", "the connection closed before the whole body arrived") from None


def _too_large(request: web.Request) -> ApiError:
    return ApiError("body_too_large", f"a body may have at most {request.client_max_size} bytes")


def _let_it_come(request: web.Request) -> None:
    """Send "100 Continue", not through aiohttp's writer, for which it would be the start of the answer."""
    if request.version == HttpVersion11 and request.transport is not None:
        request.transport.write(_CONTINUE)
