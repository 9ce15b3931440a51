"""What is wrong with a request is said in the words of whoever sent it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import FormData
from aiohttp.test_utils import TestClient
from pydantic import BaseModel

from event_log.memory.clients import MemoryLog, MemoryPublisher
from fakes.hash_encoder import draw_picture
from query_api.contract.vectors import FORMS
from query_api.route_table import ROUTES
from tests.query_api.conftest import StartService
from tests.query_api.small_index import TOPIC, SmallIndex

Client = TestClient[Any, Any]
JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def client(small_index: SmallIndex, start_service: StartService) -> Client:
    log = MemoryLog()
    log.create_topic(TOPIC, 1)
    return await start_service(small_index, publisher=MemoryPublisher(log))


async def error_of(client: Client, path: str, **request: Any) -> dict[str, Any]:
    response = await client.post(path, **request)
    assert response.status >= 400, await response.text()
    error: dict[str, Any] = (await response.json())["error"]
    return error


@pytest.mark.parametrize("path", ["/v1/search", "/v1/contents"])
async def test_a_file_in_a_part_of_another_name_is_told_the_right_name(client: Client, path: str) -> None:
    form = FormData()
    form.add_field("file", draw_picture(1), filename="a.png", content_type="image/png")
    error = await error_of(client, path, data=form)
    assert error["code"] == "unknown_field"
    assert error["message"].startswith("file: unknown field; send a picture as image; other parts are ")
    assert [detail["field"] for detail in error["details"]] == ["file"]


@pytest.mark.parametrize(("path", "code"), [("/v1/search", "bad_multipart"), ("/v1/contents", "not_unicode")])
async def test_a_part_that_is_not_utf_8_is_named(client: Client, path: str, code: str) -> None:
    form = FormData(default_to_multipart=True)
    form.add_field("text", io.BytesIO("größer".encode("latin-1")))
    error = await error_of(client, path, data=form)
    assert (error["code"], error["message"]) == (code, "the part text is not UTF-8 (at byte 2)")


async def test_a_text_in_utf_16_is_told_so(client: Client) -> None:
    params, headers = {"content_id": "t"}, {"Content-Type": "text/plain"}
    error = await error_of(
        client, "/v1/contents", data="größer".encode("utf-16"), params=params, headers=headers
    )
    assert error["message"] == "the text is not UTF-8 (it seems to be UTF-16)"


async def test_a_byte_order_mark_is_no_part_of_a_body_or_a_part(client: Client) -> None:
    search, upload = {"text": "a red dress", "k": 1}, {"content_id": "t", "content": {"text": "a"}}
    form = FormData(default_to_multipart=True)
    form.add_field("query", io.BytesIO(json.dumps(search).encode("utf-8-sig")))
    answers = [
        await client.post("/v1/search", data=json.dumps(search).encode("utf-8-sig"), headers=JSON),
        await client.post("/v1/contents", data=json.dumps(upload).encode("utf-8-sig"), headers=JSON),
        await client.post("/v1/search", data=form),
    ]
    assert [answer.status for answer in answers] == [200, 202, 200]


HALF = "a text holds half of a surrogate pair, such as \\ud83d alone: it was cut inside a character"
NOT_JSON = {
    "the first half of a character": (b'{"text": "a\\ud83d"}', HALF),
    "the second half of a character": (b'{"text": "\\ude00"}', HALF),
    "half a character before another": (b'{"text": "\\ud83d\\u0041"}', HALF),
    "nothing": (b" \n", "it is empty"),
    "Latin-1": ('{"text": "größer"}'.encode("latin-1"), "it is not UTF-8"),
    "UTF-16 with its mark": ('{"text": "a"}'.encode("utf-16"), "it is UTF-16 or UTF-32; send UTF-8"),
    "UTF-16 without a mark": ('{"text": "a"}'.encode("utf-16-le"), "it is UTF-16 or UTF-32; send UTF-8"),
    "single quotes": (b"{'text': 'a'}", "names must be texts in double quotes"),
    "a line break in a text": (b'{"text": "a\nb"}', "a text holds a line break or another control character"),
    "a path of Windows": (b'{"text": "C:\\x"}', "a text holds an unknown escape; write \\\\ for a backslash"),
    "a body that was cut off": (b'{"text": "a', "it ends too early"),
    "two bodies": (b'{"text": "a"} {}', "something follows its end"),
    "endless lists": (b'{"a":' + b"[" * 1000, "it is nested too deeply"),
}


@pytest.mark.parametrize(("body", "reason"), NOT_JSON.values(), ids=NOT_JSON)
async def test_a_body_that_is_not_json_is_told_why(client: Client, body: bytes, reason: str) -> None:
    error = await error_of(client, "/v1/search", data=body, headers=JSON)
    assert error["code"] == "bad_json"
    assert error["message"].startswith(f"the body is not JSON: {reason}")


FILTER = {"text": "a", "filter": {"must": [{"field": "metadata.a"}]}}
OF_NO_TYPE = {
    "an object in metadata": (
        "/v1/contents",
        {"content_id": "x", "content": {"text": "a"}, "metadata": {"tags": {"a": 1}}},
        "metadata.tags: must be a text, a number, true, false, null or a list of texts",
    ),
    "a list of numbers in metadata": (
        "/v1/contents",
        {"content_id": "x", "content": {"text": "a"}, "metadata": {"tags": [1]}},
        "metadata.tags: must be a text, a number, true, false, null or a list of texts",
    ),
    "a fraction as a time": (
        "/v1/contents",
        {"content_id": "x", "content": {"text": "a"}, "occurred_at": 1.5},
        "occurred_at: must be a time as a text or a whole number",
    ),
    "a list that something equals": (
        "/v1/search",
        {"text": "a", "filter": {"must": [{"field": "metadata.a", "equals": [1]}]}},
        "filter.must.0.equals: must be a text, a number, true or false",
    ),
    "an object among values": (
        "/v1/search",
        {"text": "a", "filter": {"must": [{"field": "metadata.a", "any_of": ["x", {}]}]}},
        "filter.must.0.any_of.1: must be a text, a number, true or false",
    ),
    "a boolean as a bound": (
        "/v1/browse",
        {"filter": {"must": [{"field": "metadata.a", "lt": True}]}},
        "filter.must.0.lt: must be a number or an RFC 3339 time",
    ),
}


@pytest.mark.parametrize(("path", "body", "message"), OF_NO_TYPE.values(), ids=OF_NO_TYPE)
async def test_a_value_of_no_right_type_is_one_error_for_its_field(
    client: Client, path: str, body: Any, message: str
) -> None:
    error = await error_of(client, path, json=body)
    assert error["message"] == message
    assert len(error["details"]) == 1


def has_forms_of_vectors(schema: dict[str, Any]) -> bool:
    return {choice[1] for choice in schema["choices"] if isinstance(choice, tuple)} == set(FORMS)


def unions_without_words(schema: Any, parent: str = "") -> Iterator[Any]:
    """Yield the unions of a core schema whose errors would name each of their types.

    Those of a vector's forms are joined later, because a wrapper would read every good vector twice.
    """
    if isinstance(schema, dict):
        kind = schema.get("type")
        if kind == "union" and parent != "function-wrap" and not has_forms_of_vectors(schema):
            yield schema
        for value in schema.values():
            yield from unions_without_words(value, parent if kind in (None, "nullable") else str(kind))
    elif isinstance(schema, (list, tuple)):
        for value in schema:
            yield from unions_without_words(value, parent)


def test_every_field_of_several_types_has_words_of_its_own() -> None:
    described = [body for route in ROUTES for body in (*route.bodies.values(), route.parameters)]
    models = [body for body in described if isinstance(body, type) and issubclass(body, BaseModel)]
    assert len(models) > 10
    for model in models:
        assert not list(unions_without_words(model.__pydantic_core_schema__)), model


@pytest.mark.parametrize("content_id", [".", ".."])
async def test_an_id_that_no_address_can_hold_is_refused_and_can_still_be_deleted(
    client: Client, content_id: str
) -> None:
    upload = {"content_id": content_id, "content": {"text": "a"}}
    error = await error_of(client, "/v1/contents", json=upload)
    assert error["code"] == "invalid_field"
    assert error["message"].startswith(f"content_id: {content_id} cannot stand in a web address")
    delete = await client.post("/v1/contents", json={"content_id": content_id, "operation": "delete"})
    assert delete.status == 202


ODD_IDS = [
    "...",
    "a/../b",
    "/",
    "./x",
    "%2e%2e",
    "a\\b",
    "a?b#c",
    "a+b c",
    " x ",
    "{x}",
    "größer",
    "a;b",
    "a:b",
    "-",
]


@pytest.mark.parametrize("content_id", ODD_IDS)
async def test_every_id_that_can_be_published_can_be_read_by_its_address(
    small_index: SmallIndex, start_service: StartService, content_id: str
) -> None:
    small_index.commit(0, small_index.text(content_id, "a red hat"))
    client = await start_service(small_index)
    response = await client.get(f"/v1/contents/{quote(content_id, safe='')}")
    assert (await response.json())["content"]["content_id"] == content_id


def sentences_of(schema: Any) -> Iterator[str]:
    """Yield the kinds of the nodes of a core schema."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema["type"]
        for value in schema.values():
            yield from sentences_of(value)
    elif isinstance(schema, (list, tuple)):
        for value in schema:
            yield from sentences_of(value)


OURS = {
    "a text for a number": ("/v1/search", {"text": "a", "k": "5"}, "k: must be a whole number"),
    "a fraction": ("/v1/search", {"text": "a", "k": 1.5}, "k: must be a whole number"),
    "a number for a text": ("/v1/search", {"text": 5}, "text: must be a text"),
    "a number too large": ("/v1/search", {"text": "a", "k": 1001}, "k: must be at most 1000"),
    "a number too small": ("/v1/search", {"text": "a", "k": 0}, "k: must be at least 1"),
    "another modality": ("/v1/search", {"text": "a", "modality": "video"}, "modality: must be text or image"),
    "a text for a boolean": ("/v1/search", {"text": "a", "paged": "yes"}, "paged: must be true or false"),
    "an empty text": ("/v1/search", {"text": ""}, "text: must not be empty"),
    "a long id": ("/v1/search", {"content_id": "a" * 513}, "content_id: may have at most 512 characters"),
    "a number for a list": ("/v1/search", {"text": "a", "include": 5}, "include: must be a list"),
    "a number for a vector": (
        "/v1/search",
        {"vector": 5},
        "vector: must be a list of numbers, or little-endian float32 numbers in base64",
    ),
    "a word for a vector": (
        "/v1/search",
        {"vector": "red!"},
        "vector: must be base64, alone or in a data URL",
    ),
    "a list for an object": (
        "/v1/search",
        {"text": "a", "min_offsets": []},
        "min_offsets: must be an object",
    ),
    "no entries": ("/v1/search/batch", {"queries": []}, "queries: needs 1 or more entries"),
    "too many": ("/v1/embed", {"contents": [{"text": "a"}] * 65}, "contents: may have at most 64 entries"),
    "nothing of what is needed": ("/v1/embed", {}, "contents: is missing"),
    "a list for the body": ("/v1/search", [], 'must be an object such as {"text": "a red shoe"}'),
    "a list of uploads for the body": ("/v1/contents/batch", [], 'an object such as {"contents": [{'),
    "a list of searches for the body": ("/v1/search/batch", [], 'an object such as {"queries": [{'),
    "a text for a bulk delete": ("/v1/contents/delete", "shop", 'an object such as {"filter": {'),
    "a delete of ids": ("/v1/contents/delete", {"content_ids": ["a"]}, '"content_id", "any_of": […]'),
    "a condition for a filter": (
        "/v1/search",
        {"text": "a", "filter": {"field": "metadata.colour", "equals": "red"}},
        'filter.field: unknown field; did you mean {"must": [{"field": …, "equals": …}]}?',
    ),
    "a range for a filter": (
        "/v1/search",
        {"text": "a", "filter": {"range": {"price": {"lt": 5}}}},
        'filter.range: unknown field; did you mean {"must": [{"field": …, "equals": …}]}?',
    ),
    "a filter of titles": (
        "/v1/search",
        {"text": "a", "filter": {"must": [{"field": "title", "equals": "b"}]}},
        "; a content's title cannot be filtered, but metadata.title can if uploads have it",
    ),
    "a filter that is a title": ("/v1/search", {"text": "a", "filter": {"title": "b"}}, "cannot be filtered"),
    "a facet of titles": ("/v1/facets", {"fields": ["title"]}, "title cannot be filtered"),
    "a test of other services": (
        "/v1/search",
        {"text": "a", "filter": {"must": [{"field": "metadata.tags", "contains": "b"}]}},
        "filter.must.0.contains: unknown field; did you mean equals or any_of?",
    ),
    "a negation in a condition": (
        "/v1/search",
        {"text": "a", "filter": {"must": [{"field": "source", "not_equals": "b"}]}},
        'did you mean equals, in a condition of "must_not"?',
    ),
    "no weight": ("/v1/recommend", {"positive": [{"text": "a", "weight": 0}]}, "must be greater than 0"),
    "text beside content": ("/v1/contents", {"content_id": "a", "text": "b"}, "did you mean content: {"),
    "a field of one's own": ("/v1/contents", {"content_id": "a", "colour": "b"}, 'metadata: {"colour": …}'),
}


@pytest.mark.parametrize(("path", "body", "words"), OURS.values(), ids=OURS)
async def test_a_wrong_field_is_told_in_the_service_s_own_words(
    client: Client, path: str, body: Any, words: str
) -> None:
    error = await error_of(client, path, json=body)
    assert words in error["message"]


def test_no_kind_of_field_leaves_pydantic_a_sentence_of_its_own() -> None:
    """Whatever the models are made of has words in `messages.py`."""
    described = [body for route in ROUTES for body in (*route.bodies.values(), route.parameters)]
    models = [body for body in described if isinstance(body, type) and issubclass(body, BaseModel)]
    kinds = {kind for model in models for kind in sentences_of(model.__pydantic_core_schema__)}
    checked = {"int", "float", "bool", "str", "bytes", "list", "dict", "literal", "model", "none"}
    around = {"nullable", "default", "union", "model-fields", "model-field", "definitions", "definition-ref"}
    functions = {"function-before", "function-after", "function-wrap", "no-info", "field"}
    assert kinds <= checked | around | functions, kinds - checked - around - functions


@pytest.mark.parametrize("path", ["/v1/search", "/v1/contents", "/v1/embed", "/v1/search/batch"])
async def test_json_without_a_content_type_is_told_the_header_to_add(client: Client, path: str) -> None:
    body = b'{"content_id": "a", "content": {"text": "b"}}'
    skipping = {"skip_auto_headers": ["Content-Type"]}
    error = await error_of(client, path, data=body, **skipping)
    assert error["code"] == "unsupported_media_type"
    assert "add the header 'Content-Type: application/json'" in error["message"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert (
        "'Content-Type: application/json'"
        in (await error_of(client, path, data=body, headers=form))["message"]
    )


ADDRESSES = {
    "/health": "/readyz",
    "/healthz": "/readyz",
    "/search": "POST /v1/search?",
    "/v1/health": "/readyz",
    "/collections/shop/points/search": "POST /v1/search?",
    "/collections/shop/points/query": "POST /v1/search?",
    "/collections/shop/points/query/batch": "POST /v1/search/batch?",
    "/collections/shop/points/scroll": "POST /v1/browse?",
    "/collections/shop/points/payload": "PATCH /v1/contents/{content_id}?",
    "/collections/shop/points/delete": "POST /v1/contents/delete?",
    "/collections/shop/points/1": "/v1/contents?",
    "/shop/_search": "POST /v1/search?",
    "/shop/_msearch": "POST /v1/search/batch?",
    "/shop/_doc/1": "/v1/contents?",
    "/shop/_update/1": "PATCH /v1/contents/{content_id}?",
    "/knn-service": "POST /v1/search?",
    "/indices-list": "GET /v1/index?",
    "/v1/facet": "POST /v1/facets",
    "/collections/shop/facet": "POST /v1/facets",
    "/shop/_delete_by_query": "POST /v1/contents/delete",
    "/metrics": "CLIPTIDE_QUERY_API__METRICS_PORT",
    "/nothing/like/it": "/docs",
}


@pytest.mark.parametrize(("path", "words"), ADDRESSES.items(), ids=ADDRESSES)
async def test_a_wrong_address_is_told_a_right_one(client: Client, path: str, words: str) -> None:
    error = await error_of(client, path, json={})
    assert error["code"] == "unknown_route"
    assert words in error["message"]
    assert "Not Found" not in error["message"]


async def test_a_content_that_is_not_there_is_named(client: Client) -> None:
    for path in ("/v1/contents/no%20such", "/v1/search?content_id=no%20such"):
        answer = await client.get(path)
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (404, "unknown_content")
        assert error["message"] == "there is no live content with the id 'no such'"


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_who_would_replace_a_content_by_another_method_is_told_how(client: Client, method: str) -> None:
    answer = await client.request(method, "/v1/contents/shoe-1", json={})
    message = (await answer.json())["error"]["message"]
    assert answer.status == 405
    assert "POST it to /v1/contents with its content_id" in message


async def test_a_wrong_method_is_told_in_words(client: Client) -> None:
    error = await error_of(client, "/v1/index")
    assert (error["code"], error["message"]) == ("method_not_allowed", "this route takes GET")
