"""Base64 as people have it: either alphabet, padded or not, in lines, or in a `data:` URL.

Every door reads it here, so that a text that one of them takes is taken by all of them.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote_to_bytes

_URL_SAFE_TO_STANDARD = bytes.maketrans(b"-_", b"+/")
_WHITE_SPACE = b" \t\r\n\v\f"
_LONGEST_HEADER = 1024  # of a data URL: a media type and its parameters


class NotBase64(ValueError):
    """The text is not base64. The message says what was expected."""


def bytes_from_base64(text: str) -> bytes:
    """Decode base64, or raise `NotBase64`.

    White space is passed over, because encoders break lines after 64 or 76 characters. Of a data URL
    the media type is ignored: the bytes say what they are.
    """
    try:
        digits = _digits_of(text).translate(_URL_SAFE_TO_STANDARD, _WHITE_SPACE).rstrip(b"=")
        return base64.b64decode(digits + b"=" * (-len(digits) % 4), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise NotBase64("must be base64, alone or in a data URL") from None


def _digits_of(text: str) -> bytes:
    start = text[:_LONGEST_HEADER].lstrip()
    if start[:5].lower() != "data:":
        return text.encode("ascii")
    header, comma, payload = text.partition(",")
    if not comma or not header.rstrip().lower().endswith(";base64"):
        raise NotBase64("must be a data URL in base64: data:image/jpeg;base64, and then the bytes")
    return unquote_to_bytes(payload) if "%" in payload else payload.encode("ascii")
