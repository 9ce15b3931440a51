"""Every way to ask wrongly gets one JSON shape, a stable code and the right status: never a 500."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient

from fakes.hash_encoder import HashEncoder, draw_picture
from tests.query_api.conftest import SETTINGS

Client = TestClient[Any, Any]
DIMENSION = HashEncoder().dimension
PNG = draw_picture(1)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def with_pixels(width: int, height: int) -> bytes:
    """The picture with another size in its PNG header."""
    header = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + PNG[24:29]
    return PNG[:12] + header + zlib.crc32(header).to_bytes(4, "big") + PNG[33:]


ONES = [1.0] * DIMENSION
BODIES = {
    "no query": ({}, 422, "one_query_required"),
    "text and vector": ({"text": "a", "vector": ONES}, 422, "one_query_required"),
    "text and content id": ({"text": "a", "content_id": "b"}, 422, "one_query_required"),
    "all null": ({"text": None, "image": None}, 422, "one_query_required"),
    "unknown field": ({"text": "a", "model": "mine"}, 422, "unknown_field"),
    "empty text": ({"text": ""}, 422, "out_of_range"),
    "blank text": ({"text": " \n "}, 422, "empty_text"),
    "blank to Python alone": ({"text": "\x1c\x85"}, 422, "empty_text"),
    "text too long": ({"text": "word " * 4000}, 422, "text_too_long"),
    "text far too long": ({"text": "a" * 20_001}, 422, "out_of_range"),
    "text is a number": ({"text": 5}, 422, "invalid_value"),
    "vector too short": ({"vector": ONES[1:]}, 422, "wrong_dimension"),
    "vector too long": ({"vector": [*ONES, 1.0]}, 422, "wrong_dimension"),
    "vector empty": ({"vector": []}, 422, "wrong_dimension"),
    "vector of zeros": ({"vector": [0] * DIMENSION}, 422, "zero_vector"),
    "vector with NaN": ({"vector": [float("nan"), *ONES[1:]]}, 422, "not_finite"),
    "vector with infinity": ({"vector": [float("-inf"), *ONES[1:]]}, 422, "not_finite"),
    "vector of texts": ({"vector": ["1"] * DIMENSION}, 422, "invalid_value"),
    "vector of lists": ({"vector": [ONES]}, 422, "invalid_value"),
    "k zero": ({"text": "a", "k": 0}, 422, "out_of_range"),
    "k negative": ({"text": "a", "k": -1}, 422, "out_of_range"),
    "k too large": ({"text": "a", "k": 1001}, 422, "out_of_range"),
    "k beyond any integer": ({"text": "a", "k": 10**40}, 422, "out_of_range"),
    "k a fraction": ({"text": "a", "k": 1.5}, 422, "invalid_value"),
    "k a text": ({"text": "a", "k": "5"}, 422, "invalid_value"),
    "k true": ({"text": "a", "k": True}, 422, "invalid_value"),
    "unknown modality": ({"text": "a", "modality": "audio"}, 422, "invalid_value"),
    "min_score too large": ({"text": "a", "min_score": 1.1}, 422, "out_of_range"),
    "min_score NaN": ({"text": "a", "min_score": float("nan")}, 422, "not_finite"),
    "unknown include": ({"text": "a", "include": ["everything"]}, 422, "invalid_value"),
    "include a text": ({"text": "a", "include": "text"}, 422, "invalid_value"),
    "negative timeout": ({"text": "a", "timeout_ms": -1}, 422, "out_of_range"),
    "endless timeout": ({"text": "a", "timeout_ms": 10**9}, 422, "out_of_range"),
    "negative offset": ({"text": "a", "min_offsets": {"content-uploads-0": -1}}, 422, "out_of_range"),
    "offset a text": ({"text": "a", "min_offsets": {"content-uploads-0": "1"}}, 422, "invalid_value"),
    "unknown partition": ({"text": "a", "min_offsets": {"content-uploads-2": 1}}, 422, "unknown_partition"),
    "another topic": ({"text": "a", "min_offsets": {"others-0": 0}}, 422, "unknown_partition"),
    "unknown content id": ({"content_id": "nobody"}, 404, "unknown_content"),
    "empty content id": ({"content_id": ""}, 422, "out_of_range"),
    "content id too long": ({"content_id": "i" * 513}, 422, "out_of_range"),
    "bad base64": ({"image": "not base64!"}, 422, "bad_base64"),
    "base64 of five digits": ({"image": "abcde"}, 422, "bad_base64"),
    "base64 of blanks alone": ({"image": " \n"}, 422, "out_of_range"),
    "a data URL in another encoding": ({"image": "data:image/png,abcd"}, 422, "bad_base64"),
    "non-ascii base64": ({"image": "äöü="}, 422, "bad_base64"),
    "image a number": ({"image": 5}, 422, "invalid_value"),
    "empty image": ({"image": ""}, 422, "out_of_range"),
    "no image": ({"image": encoded(b"just words")}, 415, "not_an_image"),
    "unsupported image": ({"image": encoded(b"8BPS" + bytes(60))}, 415, "unsupported_image"),
    "truncated image": ({"image": encoded(PNG[:-30])}, 422, "truncated_image"),
    "decompression bomb": ({"image": encoded(with_pixels(60_000, 60_000))}, 422, "image_too_large"),
}


@pytest.mark.parametrize(("body", "status", "code"), BODIES.values(), ids=BODIES)
async def test_a_bad_search_is_refused(client: Client, body: Any, status: int, code: str) -> None:
    await expect_error(await client.post("/v1/search", json=body), status, code)


RAW_BODIES = {
    "empty": (b"", 400, "bad_json"),
    "no JSON": (b"{text: 1}", 400, "bad_json"),
    "cut off": (b'{"text": "a', 400, "bad_json"),
    "more behind the end": (b'{"text": "a"} x', 400, "bad_json"),
    "not UTF-8": (b'{"text": "\xff"}', 400, "bad_json"),
    "half a surrogate": (b'{"text": "\\ud800"}', 400, "bad_json"),
    "nested deeply": (b"[" * 100_000, 400, "bad_json"),
    "a list": (b"[]", 422, "invalid_value"),
    "null": (b"null", 422, "invalid_value"),
    "too large": (b'{"text": "' + b"a" * (1 << 20) + b'"}', 413, "body_too_large"),
}


@pytest.mark.parametrize(("body", "status", "code"), RAW_BODIES.values(), ids=RAW_BODIES)
async def test_a_body_that_is_no_json_object_is_refused(
    client: Client, body: bytes, status: int, code: str
) -> None:
    headers = {"Content-Type": "application/json"}
    response = await client.post("/v1/search", data=io.BytesIO(body), headers=headers)
    await expect_error(response, status, code)


async def in_pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 1 << 16):
        yield bytes(1 << 16)


def at_once(size: int) -> io.BytesIO:
    return io.BytesIO(bytes(size))


@pytest.mark.parametrize("body", [at_once, in_pieces], ids=["with its length", "without"])
@pytest.mark.parametrize("path", ["/v1/search", "/v1/contents"])
async def test_a_body_that_is_too_large_is_told_the_limit(client: Client, path: str, body: Any) -> None:
    headers = {"Content-Type": "image/jpeg"}
    limit = SETTINGS["max_body_bytes"]
    response = await client.post(path, data=body(limit + (1 << 16)), headers=headers)
    error = (await response.json())["error"]
    assert (response.status, error["code"]) == (413, "body_too_large")
    assert error["message"] == f"a body may have at most {limit} bytes"


CONTENT_TYPES = {
    "none": ({}, 415, "unsupported_media_type"),
    "text": ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
    "form": ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
    "nonsense": ({"Content-Type": "application/json/x;;"}, 415, "unsupported_media_type"),
    "multipart without boundary": ({"Content-Type": "multipart/form-data"}, 400, "bad_multipart"),
    "compressed but is not": (
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        400,
        "bad_body",
    ),
}


@pytest.mark.parametrize(("headers", "status", "code"), CONTENT_TYPES.values(), ids=CONTENT_TYPES)
async def test_a_wrong_content_type_is_refused(
    client: Client, headers: dict[str, str], status: int, code: str
) -> None:
    skip = ["Content-Type"]
    response = await client.post("/v1/search", data=b'{"text": "a"}', headers=headers, skip_auto_headers=skip)
    await expect_error(response, status, code)


async def test_a_chunked_body_is_bounded_too(client: Client) -> None:
    async def endless() -> Any:
        for _ in range(64):
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    await expect_error(
        await client.post("/v1/search", data=endless(), headers=headers), 413, "body_too_large"
    )


def form_with(*fields: tuple[str, Any]) -> FormData:
    form = FormData(default_to_multipart=True)
    for name, value in fields:
        filename = "f.bin" if isinstance(value, bytes) else None
        form.add_field(name, value, filename=filename, content_type=None if filename is None else "image/png")
    return form


FORMS = {
    "two images": ((("image", PNG), ("image", PNG)), 400, "bad_multipart"),
    "plain and query": ((("image", PNG), ("k", "1"), ("query", "{}")), 400, "bad_multipart"),
    "include empty": ((("text", "red"), ("include", "")), 422, "invalid_value"),
    "include with an empty item": ((("text", "red"), ("include", "text,")), 422, "invalid_value"),
    "include with a blank": ((("text", "red"), ("include", "text, vector")), 422, "invalid_value"),
    "too many includes": ((("text", "red"), ("include", ",".join(["text"] * 9))), 422, "out_of_range"),
    "query no JSON": ((("image", PNG), ("query", "{")), 400, "bad_json"),
    "query a list": ((("image", PNG), ("query", "[]")), 422, "invalid_value"),
    "query with NaN": ((("image", PNG), ("query", '{"min_score": NaN}')), 422, "not_finite"),
    "unknown plain field": ((("image", PNG), ("model", "x")), 422, "unknown_field"),
    "k no number": ((("image", PNG), ("k", "ten")), 422, "invalid_value"),
    "text not UTF-8": ((("text", b"\xff\xfe"),), 400, "bad_multipart"),
    "image and text": ((("image", PNG), ("text", "a")), 422, "one_query_required"),
    "empty image": ((("image", b""),), 422, "out_of_range"),
    "no image": ((("image", b"words"),), 415, "not_an_image"),
    "too many parts": (tuple((f"f{n}", "x") for n in range(17)), 400, "bad_multipart"),
    "too large": ((("image", bytes(1 << 20)), ("k", "1")), 413, "body_too_large"),
}


@pytest.mark.parametrize(("fields", "status", "code"), FORMS.values(), ids=FORMS)
async def test_a_bad_form_is_refused(client: Client, fields: Any, status: int, code: str) -> None:
    await expect_error(await client.post("/v1/search", data=form_with(*fields)), status, code)


async def test_an_encoded_part_is_refused_and_not_taken_for_a_text(client: Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for encoding, status in (("base64", 400), ("Quoted-Printable", 400), ("8bit", 200)):
        part = f'Content-Disposition: form-data; name="text"\r\nContent-Transfer-Encoding: {encoding}'
        body = f"--b\r\n{part}\r\n\r\ncmVkIGRyZXNz\r\n--b--\r\n"
        response = await client.post("/v1/search", data=body, headers=headers)
        assert response.status == status, encoding


async def test_a_malformed_multipart_body_is_refused(client: Client) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    for body in (
        b"",
        b"junk",
        b"--b\r\n",
        b"--b\r\n\r\nx",
        b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
    ):
        response = await client.post("/v1/search", data=body, headers=headers)
        assert response.status in (400, 422), body
        assert (await response.json())["error"]["code"] in ("bad_multipart", "one_query_required")


PARAMETERS = {
    "no query": ("", 422, "one_query_required"),
    "text and content id": ("q=a&content_id=b", 422, "one_query_required"),
    "the body's field": ("text=a", 422, "unknown_field"),
    "given twice": ("q=a&q=b", 422, "invalid_value"),
    "k no number": ("q=a&k=x", 422, "invalid_value"),
    "k a fraction": ("q=a&k=1.5", 422, "invalid_value"),
    "k too large": ("q=a&k=1001", 422, "out_of_range"),
    "k of many digits": ("q=a&k=" + "9" * 5000, 422, "invalid_value"),
    "min_score NaN": ("q=a&min_score=nan", 422, "not_finite"),
    "offsets without a number": ("q=a&min_offsets=content-uploads-0", 422, "invalid_value"),
    "offsets with words": ("q=a&min_offsets=content-uploads-0:x", 422, "invalid_value"),
    "unknown partition": ("q=a&min_offsets=others-0:1", 422, "unknown_partition"),
    "offsets after a blank": (
        "q=a&min_offsets=content-uploads-0:0,%20content-uploads-1:0",
        422,
        "invalid_value",
    ),
    "unknown include": ("q=a&include=text,all", 422, "invalid_value"),
    "empty include": ("q=a&include=", 422, "invalid_value"),
    "include with an empty item": ("q=a&include=text,", 422, "invalid_value"),
    "include with a blank": ("q=a&include=text,%20vector", 422, "invalid_value"),
    "too many includes": ("q=a&include=" + ",".join(["text"] * 9), 422, "out_of_range"),
}


@pytest.mark.parametrize(("query", "status", "code"), PARAMETERS.values(), ids=PARAMETERS)
async def test_a_bad_query_string_is_refused(client: Client, query: str, status: int, code: str) -> None:
    await expect_error(await client.get(f"/v1/search?{query}"), status, code)


ROUTES = {
    "no such route": ("GET", "/v2/search", 404, "unknown_route"),
    "no such method": ("DELETE", "/v1/search", 405, "method_not_allowed"),
    "no such content": ("GET", "/v1/contents/nobody", 404, "unknown_content"),
    "unknown parameter": ("GET", "/v1/contents/t-red?model=x", 422, "unknown_field"),
    "empty include": ("GET", "/v1/contents/t-red?include=", 422, "invalid_value"),
    "another include": ("GET", "/v1/contents/t-red?include=vector,text", 422, "invalid_value"),
    "bytes that are no text": ("GET", "/v1/contents/%ff%fe", 400, "bad_request"),
    "a zero byte": ("GET", "/v1/contents/%00", 404, "unknown_content"),
}


@pytest.mark.parametrize(("method", "path", "status", "code"), ROUTES.values(), ids=ROUTES)
async def test_a_bad_address_is_refused(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    await expect_error(await client.request(method, path), status, code)


async def test_a_wrong_method_names_the_right_ones(client: Client) -> None:
    response = await client.delete("/v1/search")
    assert set(response.headers["Allow"].split(",")) == {"GET", "HEAD", "POST"}


@pytest.mark.parametrize("path", ["/v1/contents/batch", "/v1/contents/delete"])
async def test_an_address_that_is_also_an_id_allows_the_methods_of_both(client: Client, path: str) -> None:
    response = await client.options(path)
    assert response.status == 405
    assert set(response.headers["Allow"].split(",")) == {"DELETE", "GET", "HEAD", "PATCH", "POST"}


async def test_details_name_every_wrong_field_but_no_value(client: Client) -> None:
    response = await client.post("/v1/search", json={"text": "secret words", "k": "secret", "x": "secret"})
    text = await response.text()
    details = {detail["field"]: detail["code"] for detail in json.loads(text)["error"]["details"]}
    assert details == {"k": "invalid_value", "x": "unknown_field"}
    assert "secret" not in text


TOLD = {
    "a misspelt field": ({"text": "a", "kk": 1}, "kk: unknown field; did you mean k?"),
    "a field like none": ({"text": "a", "zzzzz": 1}, "zzzzz: unknown field"),
    "another service's word for k": ({"text": "a", "limit": 1}, "limit: unknown field; did you mean k?"),
    "another word for k": ({"text": "a", "top_k": 1}, "top_k: unknown field; did you mean k?"),
    "an offset": (
        {"text": "a", "offset": 10},
        'offset: unknown field; pages go on by "paged": true and then "cursor", not by an offset',
    ),
    "a filter by name": (
        {"text": "a", "filter": {"source": "shop"}},
        'filter.source: unknown field; did you mean {"must": [{"field": "source", "equals": …}]}?',
    ),
    "a filter by a metadata name": (
        {"text": "a", "filter": {"price": 5}},
        'filter.price: unknown field; did you mean {"must": [{"field": "metadata.price", "equals": …}]}?',
    ),
    "a condition of Qdrant": (
        {"text": "a", "filter": {"must": [{"key": "source", "match": {"value": "shop"}}]}},
        "filter.must.0.key: unknown field; did you mean field?",
    ),
    "a condition in a batch": (
        {"queries": [{"text": "a", "filter": {"must_not": [{"field": "source", "range": {"lt": 5}}]}}]},
        "queries.0.filter.must_not.0.range: unknown field; did you mean gt, gte, lt or lte?",
    ),
    "a term with another word": (
        {"terms": [{"prompt": "a"}]},
        "terms.0.prompt: unknown field; did you mean text?",
    ),
    "a filter of metadata without its prefix": (
        {"text": "a", "filter": {"must": [{"field": "price", "lt": 5}]}},
        (
            "filter.must.0.field: must be one of modality, source, owner_id, content_id, occurred_at "
            "and metadata.<key>; did you mean metadata.price?"
        ),
    ),
    "a term as a plain text": (
        {"terms": ["a red shoe"]},
        'terms.0: must be an object such as {"text": "a red shoe"}',
    ),
    "a condition as a plain text": (
        {"text": "a", "filter": {"must": ["shop"]}},
        'filter.must.0: must be an object such as {"field": "source", "equals": "shop"}',
    ),
    "a partition too many": (
        {"text": "a", "min_offsets": {"content-uploads-9": 1}},
        "min_offsets: there is no content-uploads-9; the index has content-uploads-0, content-uploads-1",
    ),
}


TOLD_OF_PARAMETERS = {
    "limit": "limit: unknown field; did you mean k?",
    "query": "query: unknown field; did you mean q?",
    "text": "text: unknown field; did you mean q?",
    "price": "price: unknown field; did you mean metadata.price?",
    "user_id": "user_id: unknown field; did you mean owner_id?",
    "<b>": "<b>: unknown field",
    "k" * 61: "k" * 61 + ": unknown field",
}


@pytest.mark.parametrize(("name", "message"), TOLD_OF_PARAMETERS.items(), ids=TOLD_OF_PARAMETERS)
async def test_a_parameter_of_another_name_is_told_the_right_one(
    client: Client, name: str, message: str
) -> None:
    response = await client.get("/v1/search", params={"q": "a", name: "5"})
    assert (await response.json())["error"]["message"] == message


@pytest.mark.parametrize("include", ["", "text,", "text, vector"])
async def test_a_list_in_a_query_string_is_told_what_separates_it(client: Client, include: str) -> None:
    response = await client.get("/v1/search", params={"q": "red", "include": include})
    message = (await response.json())["error"]["message"]
    assert message == "include: must be names separated by commas, without blanks"


@pytest.mark.parametrize(("body", "message"), TOLD.values(), ids=TOLD)
async def test_a_message_says_what_to_write_instead(client: Client, body: Any, message: str) -> None:
    answer = await (await client.post("/v1/search", json=body)).json()
    assert answer["error"]["message"] == message


@pytest.mark.parametrize("query", ["", "k=3", "q=a&content_id=b"])
async def test_a_query_string_without_one_question_is_told_its_own_names(client: Client, query: str) -> None:
    answer = await (await client.get(f"/v1/search?{query}")).json()
    assert answer["error"]["code"] == "one_query_required"
    assert answer["error"]["message"] == "needs either q, a text, or content_id"


async def test_a_request_id_is_kept_if_it_is_a_plain_one(client: Client) -> None:
    given = await client.get("/v1/index", headers={"X-Request-Id": "order-66"})
    odd = await client.get("/v1/index", headers={"X-Request-Id": "<script>"})
    assert given.headers["X-Request-Id"] == "order-66"
    assert len(odd.headers["X-Request-Id"]) == 32


async def expect_error(response: Any, status: int, code: str) -> None:
    body = await response.json()
    assert (response.status, body["error"]["code"]) == (status, code), body
    assert body["error"]["message"]
    assert body["error"]["request_id"] == response.headers["X-Request-Id"]
