"""Bodies, received whole before any work begins: bounded in size and in time."""

from __future__ import annotations

import asyncio

from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler, Middleware

from query_api.errors import ApiError
from query_api.telemetry.stages import STAGES

_ENCODINGS = ("identity", "gzip", "deflate", "br", "zstd")  # aiohttp's; it passes others through as they are
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def build_receiver(timeout_seconds: float) -> Middleware:
    """Build the middleware that reads a request's body; handlers find it in `request.read()`."""

    @web.middleware
    async def receive(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.method == "POST" and request.body_exists and request.match_info.http_exception is None:
            with request[STAGES].measure("read"):
                await _receive(request, timeout_seconds)
        return await handler(request)

    return receive


async def _receive(request: web.Request, timeout_seconds: float) -> None:
    """Read the body, or raise `ApiError`: too large, too slow, or not what its encoding says."""
    if (request.content_length or 0) > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, request.content_length or 0)
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in _ENCODINGS:
        raise ApiError("bad_body", "the body has a Content-Encoding that is not taken; send gzip or none")
    if request.version == HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(_CONTINUE)
        request.writer.output_size = 0  # the answer itself has not begun
    try:
        if request.content.is_eof():  # it came with the headers: nothing to wait for
            await request.read()
        else:
            await asyncio.wait_for(request.read(), timeout_seconds)
    except asyncio.TimeoutError:
        message = f"the request did not arrive within {timeout_seconds:g} s"
        raise ApiError("request_timeout", message) from None
    except web.RequestPayloadError:
        raise ApiError("bad_body", "the body does not decode as its Content-Encoding says") from None
    except ConnectionError:
        raise ApiError("bad_body", "the client left before the body was whole") from None
