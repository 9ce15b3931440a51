"""Reads multipart forms (RFC 7578) out of bodies that have arrived whole.

aiohttp's reader goes through a body line by line on the event loop, so that a body of line ends
holds up all other requests. This one looks for boundaries only. It takes nothing before the first
boundary, and it stops at the first boundary that is malformed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from query_api.errors import ApiError

MAX_PARTS = 16
MAX_HEADER_BYTES = 8 * 1024  # of one part
_BOUNDARY = re.compile(r';\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";]{1,70}))\s*(?:;|$)', re.IGNORECASE)
_LINE_END = re.compile(rb"[ \t]*\r\n")
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s";]+)\s*')
_PLAIN_ENCODINGS = ("7bit", "8bit", "binary")


def parts_of_form(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the parts of a form by name. Raises `ApiError` (bad_multipart)."""
    parts: dict[str, bytes] = {}
    for head, value in _split(body, b"--" + _boundary_of(content_type)):
        name = _name_of(_read_headers(head))
        if name in parts or len(parts) == MAX_PARTS:
            raise _malformed(f"a part is given twice, or there are more than {MAX_PARTS}")
        parts[name] = value
    return parts


def _boundary_of(content_type: str) -> bytes:
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise _malformed("the Content-Type has no boundary of 1 to 70 characters")
    return (found[1] or found[2]).encode("utf-8", "surrogateescape")


def _split(body: bytes, delimiter: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers and the value of each part, up to the closing boundary."""
    if not body.startswith(delimiter):
        raise _malformed("the body does not begin with its boundary")
    position = len(delimiter)
    while not body.startswith(b"--", position):
        line_end = _LINE_END.match(body, position)
        if line_end is None:
            raise _malformed("a boundary is not followed by a line end")
        end = body.find(b"\r\n" + delimiter, line_end.end() - 2)
        if end < 0:
            raise _malformed("the closing boundary is missing")
        yield _split_head(body, line_end.end(), end)
        position = end + 2 + len(delimiter)


def _split_head(body: bytes, start: int, end: int) -> tuple[bytes, bytes]:
    """Split a part at the empty line behind its headers."""
    head_end = body.find(b"\r\n\r\n", start, min(end, start + MAX_HEADER_BYTES))
    if head_end < 0:
        raise _malformed(f"a part has no headers, or headers of more than {MAX_HEADER_BYTES} bytes")
    return body[start:head_end], body[head_end + 4 : end]


def _read_headers(head: bytes) -> Mapping[str, str]:
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _name_of(headers: Mapping[str, str]) -> str:
    """Return a part's name, and refuse parts that this service cannot read as they are."""
    kind, _, rest = headers.get("content-disposition", "").partition(";")
    parameters = dict(_PARAMETER.findall(f";{rest}"))
    name = _unquoted(parameters.get("name", ""))
    is_nested = headers.get("content-type", "").lower().startswith("multipart/")
    if kind.strip().lower() != "form-data" or not name or is_nested:
        raise _malformed("every part needs a name, and parts may not be nested")
    if headers.get("content-transfer-encoding", "binary").lower() not in _PLAIN_ENCODINGS:
        raise _malformed("send parts without a Content-Transfer-Encoding")
    return name


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _malformed(message: str) -> ApiError:
    return ApiError("bad_multipart", message)
