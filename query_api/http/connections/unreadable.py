"""Answers that are given before there is a request: the connection is one too many, or unreadable."""

from __future__ import annotations

import asyncio
import uuid
from http import HTTPStatus

from query_api.contract.models import ErrorAnswer, ErrorBody
from query_api.errors import STATUSES

_MESSAGES = {
    "bad_request": "not a readable HTTP request",
    "headers_too_large": "the request line or a header is too long",
    "internal": "internal error",
    "overloaded": "too many connections are open",
}


def refuse_connection(transport: asyncio.Transport) -> None:
    """Answer 503 and close, before a request is read."""
    transport.set_protocol(asyncio.Protocol())
    _answer_and_close(transport, "overloaded", "Retry-After: 1\r\n")


def refuse_request(transport: asyncio.Transport) -> None:
    """Answer 400 and close, when aiohttp could not read the request."""
    _answer_and_close(transport, "bad_request")


def error_text(code: str) -> str:
    """Write an error answer; its request id is new, because no request could bring one."""
    body = ErrorBody(code=code, message=_MESSAGES[code], request_id=uuid.uuid4().hex)
    return ErrorAnswer(error=body).model_dump_json(exclude_none=True)


def code_of(status: int, exc: BaseException | None) -> str:
    """Return the error code for a request that aiohttp could not read or answer."""
    if type(exc).__name__ == "LineTooLong":  # by its name, because aiohttp does not export the class
        return "headers_too_large"
    return "internal" if status >= 500 else "bad_request"


def _answer_and_close(transport: asyncio.Transport, code: str, headers: str = "") -> None:
    status, text = HTTPStatus(STATUSES[code]), error_text(code).encode()
    head = (
        f"HTTP/1.1 {status:d} {status.phrase}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"{headers}Connection: close\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    transport.write(head.encode() + text)
    transport.close()
