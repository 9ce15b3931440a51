"""Forms are read by their boundaries alone."""

from __future__ import annotations

import pytest

from query_api.errors import ApiError
from query_api.http.bodies.forms import MAX_HEADER_BYTES, MAX_PARTS, parts_of_form

TYPE = "multipart/form-data; boundary=b"


def part(name: str, value: bytes = b"x", more: str = "") -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"


END = b"--b--\r\n"
READ = {
    "no part": (END, {}),
    "one": (part("a") + END, {"a": b"x"}),
    "two": (part("a") + part("b", b"y") + END, {"a": b"x", "b": b"y"}),
    "an empty one": (part("a", b"") + END, {"a": b""}),
    "line ends in a value": (part("a", b"\r\n\r\n--\r\n") + END, {"a": b"\r\n\r\n--\r\n"}),
    "a file": (part("a", more='; filename="a; name=b.png"\r\nContent-Type: image/png') + END, {"a": b"x"}),
    "a file name in Unicode": (part("a", more="; filename*=UTF-8''%e2%82%ac") + END, {"a": b"x"}),
    "blanks behind a boundary": (part("a").replace(b"--b\r\n", b"--b \t\r\n") + END, {"a": b"x"}),
    "a name without quotes": (
        b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n" + END,
        {"a": b"x"},
    ),
    "headers in another case": (part("a").replace(b"Content-D", b"content-d") + END, {"a": b"x"}),
    "something behind the end": (part("a") + END + b"epilogue", {"a": b"x"}),
    "no line end behind the end": (part("a") + b"--b--", {"a": b"x"}),
}


@pytest.mark.parametrize(("body", "parts"), READ.values(), ids=READ)
def test_a_form_is_its_parts_by_name(body: bytes, parts: dict[str, bytes]) -> None:
    assert parts_of_form(TYPE, body) == parts


REFUSED = {
    "nothing": b"",
    "no boundary": b"junk",
    "something before the first boundary": b"\r\n" + part("a") + END,
    "another boundary": b"--c\r\n\r\n\r\n--c--",
    "no closing boundary": part("a"),
    "no headers": b"--b\r\n\r\nx\r\n--b--",
    "headers without an end": b"--b\r\nContent-Disposition: form-data\r\n--b--",
    "endless headers": part("a", more="\r\nX: " + "y" * MAX_HEADER_BYTES) + END,
    "no name": b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END,
    "an empty name": part("") + END,
    "no disposition": b"--b\r\nX: y\r\n\r\nx\r\n" + END,
    "another disposition": part("a").replace(b"form-data", b"attachment") + END,
    "a nested form": part("a", more="\r\nContent-Type: multipart/mixed; boundary=c") + END,
    "an encoded part": part("a", more="\r\nContent-Transfer-Encoding: base64") + END,
    "a part twice": part("a") * 2 + END,
    "too many parts": b"".join(part(f"p{n}") for n in range(MAX_PARTS + 1)) + END,
    "a longer boundary in a value": part("a", b"\r\n--bc") + END,
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_a_malformed_form_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parts_of_form(TYPE, body)
    assert caught.value.code == "bad_multipart"


TYPES = {
    "in quotes": 'multipart/form-data; boundary="b"',
    "in capitals": "multipart/form-data; BOUNDARY=b",
    "before another parameter": "multipart/form-data; boundary=b; charset=utf-8",
    "after another parameter": "multipart/form-data;charset=utf-8;boundary=b",
}


@pytest.mark.parametrize("content_type", TYPES.values(), ids=TYPES)
def test_a_boundary_is_found_in_any_spelling(content_type: str) -> None:
    assert parts_of_form(content_type, part("a") + END) == {"a": b"x"}


@pytest.mark.parametrize("content_type", ["multipart/form-data", f"multipart/form-data; boundary={'b' * 71}"])
def test_a_form_needs_a_boundary(content_type: str) -> None:
    with pytest.raises(ApiError):
        parts_of_form(content_type, part("a") + END)
