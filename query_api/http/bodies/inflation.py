"""Compressed bodies are inflated piece by piece, and no further than a body may be large.

aiohttp would inflate them on the event loop, in pieces as large as a body may be, and would go on
after the body was refused. So it hands over the bytes as they came (`KEEP_COMPRESSED`).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from query_api.errors import ApiError

KEEP_COMPRESSED: Mapping[str, Any] = MappingProxyType({"auto_decompress": False})  # for aiohttp's connections
ENCODINGS = ("gzip", "x-gzip", "deflate")
_PIECE_BYTES = 64 * 1024
_MAX_MEMBERS = 4096  # of 64 KiB each a body may have 256; each costs some microseconds, also if it is empty
_NOT_ZERO = re.compile(rb"[^\0]")
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_ZLIB_METHOD = 8  # the low four bits of a zlib header; some clients send deflate without the header


def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Inflate a body. Blocking. Raises `ApiError`: `body_too_large`, or `bad_body` if it is damaged."""
    inflated = bytearray()
    try:
        for piece in _pieces(body, encoding):
            if len(inflated) + len(piece) > max_bytes:
                raise ApiError("body_too_large", f"the body is larger than {max_bytes} bytes when inflated")
            inflated += piece
    except (zlib.error, EOFError):
        raise ApiError("bad_body", "the body cannot be decoded by its Content-Encoding") from None
    return bytes(inflated)


def _pieces(data: bytes, encoding: str) -> Iterator[bytes]:
    if encoding == "deflate":
        has_header = data[:1] and data[0] & 0xF == _ZLIB_METHOD
        end = yield from _pieces_of_one(data, 0, _ZLIB if has_header else _RAW)
    else:
        end = yield from _pieces_of_members(data)
    if end < len(data):
        raise zlib.error("something follows the end")


def _pieces_of_members(data: bytes) -> Generator[bytes, None, int]:
    """Yield the pieces of the members that gzip allows, between and behind which zeros may stand."""
    end = 0
    for _ in range(_MAX_MEMBERS):
        end = yield from _pieces_of_one(data, end, _GZIP)
        following = _NOT_ZERO.search(data, end)
        if following is None:
            return len(data)
        end = following.start()
    return end


def _pieces_of_one(data: bytes, start: int, window_bits: int) -> Generator[bytes, None, int]:
    """Yield the pieces of the stream that starts there; return where it ends."""
    inflater = zlib.decompressobj(window_bits)
    view = memoryview(data)
    while not inflater.eof:
        given = inflater.unconsumed_tail or view[start : start + _PIECE_BYTES]
        start += 0 if inflater.unconsumed_tail else len(given)
        piece = inflater.decompress(given, _PIECE_BYTES)
        if not (piece or given):
            raise EOFError
        yield piece
    return start - len(inflater.unused_data)
