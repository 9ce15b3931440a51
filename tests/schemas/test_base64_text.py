"""Base64 is read in every form in which programs and people write it."""

from __future__ import annotations

import base64

import pytest

from schemas.base64_text import NotBase64, bytes_from_base64

DATA = bytes(range(256)) + b"\xfb\xff"  # its base64 holds + and /, is longer than a line, needs no padding
SHORT = DATA[-7:]  # needs padding
PLAIN, URL_SAFE = base64.b64encode(DATA).decode(), base64.urlsafe_b64encode(DATA).decode()
FORMS = {
    "plain": PLAIN,
    "URL-safe": URL_SAFE,
    "lines of 76 characters": base64.encodebytes(DATA).decode(),
    "lines of 64 characters that end as on Windows": "\r\n".join(
        PLAIN[at : at + 64] for at in range(0, len(PLAIN), 64)
    ),
    "blanks around it": f" \t{PLAIN}\n",
    "a data URL": f"data:image/jpeg;base64,{PLAIN}",
    "a data URL without a type": f"data:;base64,{PLAIN}",
    "a data URL with a parameter": f"data:image/svg+xml;charset=utf-8;base64,{PLAIN}",
    "a data URL in capitals": f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
    "a data URL with lines": f"\ndata:image/jpeg;base64,\n{base64.encodebytes(DATA).decode()}",
    "a URL-safe data URL": f"data:image/jpeg;base64,{URL_SAFE}",
    "a data URL with escapes": "data:image/jpeg;base64,"
    + PLAIN.replace("+", "%2B").replace("/", "%2f").replace("=", "%3D"),
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_base64_is_read_in_every_form(text: str) -> None:
    assert bytes_from_base64(text) == DATA


@pytest.mark.parametrize("padding", ["", "=", "==", "\n=\n="])
def test_padding_may_be_missing(padding: str) -> None:
    digits = base64.b64encode(SHORT).decode().rstrip("=")
    assert bytes_from_base64(digits + padding) == SHORT


BAD = [
    "!",
    "a",
    "abcde",
    "YQ==YQ==",
    "äöü=",
    "a.b=",
    "http://x.test/a.jpg",
    "data:image/png,abcd",
    "data:abcd",
]


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_refused_in_words(text: str) -> None:
    with pytest.raises(NotBase64, match="must be "):
        bytes_from_base64(text)
