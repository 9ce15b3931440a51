"""Texts from bytes. A byte order mark, which Windows programs write, is no part of a text."""

from __future__ import annotations

import codecs

from query_api.errors import ApiError

_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def text_from_bytes(value: bytes, name: str = "the text", *, code: str = "not_unicode") -> str:
    """Decode UTF-8. Raises `ApiError` of this code, which says what `name` seems to be."""
    try:
        return value.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ApiError(code, f"{name} is not UTF-8 ({_guess(value, error.start)})") from None


def without_mark(value: bytes) -> bytes:
    """Return UTF-8 without its byte order mark."""
    return value.removeprefix(codecs.BOM_UTF8)


def _guess(value: bytes, start: int) -> str:
    return "it seems to be UTF-16" if value.startswith(_UTF_16) else f"at byte {start}"
