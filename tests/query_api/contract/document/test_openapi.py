"""The document says what is served, and nothing else."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp.test_utils import TestClient

from query_api.contract.document.openapi import build_document, error_codes
from query_api.contract.schema_rules import NOT_BLANK
from query_api.http.guards.api_keys import ApiKeys
from query_api.route_table import ROUTES
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

Client = TestClient[Any, Any]
ROOT = Path(__file__).parents[4]


@pytest.fixture
async def document(client: Client) -> Any:
    return await (await client.get("/openapi.json")).json()


HIDDEN_PATHS = {"/", "/page/{file}", "/docs", "/docs/{asset}", "/openapi.json"}


async def test_every_route_but_those_for_browsers_is_documented_and_every_documented_one_is_served(
    client: Client, document: Any
) -> None:
    assert client.app is not None
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    documented = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert documented == {(method, path) for method, path in served if path not in HIDDEN_PATHS}
    assert {path for _, path in served} >= HIDDEN_PATHS


def test_every_reference_is_kept() -> None:
    document = build_document(ROUTES, needs_key=True)
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    for reference in {part.partition('"')[0] for part in text.split('"$ref": "')[1:]}:
        assert reference.removeprefix("#/components/schemas/") in schemas


def test_the_document_takes_for_blank_what_the_service_takes_for_blank() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1)]
    not_blank = re.compile(NOT_BLANK["pattern"])
    assert [c for c in characters if not not_blank.search(c)] == [c for c in characters if not c.strip()]


def test_no_pattern_has_a_class_that_differs_between_dialects() -> None:
    document = json.dumps(build_document(ROUTES, needs_key=False))
    patterns = [json.loads(text) for text in re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', document)]
    assert len(patterns) > 5
    anything = r"[\s\S]"
    assert not [pattern for pattern in patterns if re.search(r"\\[dswDSW]", pattern.replace(anything, ""))]


def test_keys_are_documented_where_there_are_any() -> None:
    guarded = build_document(ROUTES, needs_key=True)["paths"]
    free = build_document(ROUTES, needs_key=False)["paths"]
    assert guarded["/v1/search"]["post"]["security"] == [{"bearer": []}, {"api-key": []}]
    assert guarded["/livez"]["get"]["security"] == []
    assert free["/v1/search"]["post"]["security"] == []


def test_operations_have_names_of_their_own() -> None:
    names = [route.name or route.handler.__name__ for route in ROUTES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_a_route_tells_its_errors(route: Any) -> None:
    assert {"bad_request", "too_many_requests"} <= error_codes(route)
    assert ("key_required" in error_codes(route)) == (route.access != "open")


async def test_the_docs_are_served_from_here_alone(client: Client) -> None:
    page = await client.get("/docs")
    text = await page.text()
    assert (page.status, page.content_type) == (200, "text/html")
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for name, kind in (
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("start.js", "text/javascript"),
    ):
        asset = await client.get(f"/docs/{name}")
        assert (asset.status, asset.content_type) == (200, kind)
        assert await asset.read()


async def test_the_calls_of_earlier_services_are_folded_in_the_docs(client: Client) -> None:
    script = await (await client.get("/docs/start.js")).text()
    assert 'page.layoutActions.show(["operations-tag", "legacy"], false)' in script


@pytest.mark.parametrize("name", ["index.html", "..%2F__init__.py", "%2Fetc%2Fpasswd", "LICENSE"])
async def test_no_other_file_is_served(client: Client, name: str) -> None:
    assert (await client.get(f"/docs/{name}")).status == 404


async def test_with_keys_the_document_is_open_to_read(
    small_index: SmallIndex, start_service: StartService
) -> None:

    client = await start_service(small_index, keys=ApiKeys(frozenset({bytes(32)}), frozenset()))
    document = await (await client.get("/openapi.json")).json()
    assert document["paths"]["/v1/search"]["get"]["security"]


def curl_calls(text: str) -> Iterator[list[str]]:
    """The words of each call of curl. A body may go on in the next lines."""
    lines = iter(text.replace("\\\n", "").splitlines())
    for line in lines:
        call = line if line.startswith("curl ") else ""
        while call:
            try:
                yield shlex.split(call)
                break
            except ValueError:  # a quotation that ends in a later line
                call += "\n" + next(lines)


def curl_bodies() -> Iterator[Any]:
    """Path and body of each call that sends JSON in README and in the documents."""
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    for words in curl_calls("\n".join(page.read_text("utf-8") for page in pages)):
        if "-d" in words:
            [address] = [word for word in words if word.startswith("http://")]
            yield pytest.param(urlsplit(address).path, words[words.index("-d") + 1], id=" ".join(words)[:70])


@pytest.mark.parametrize(("path", "body"), list(curl_bodies()))
def test_a_call_of_the_documents_is_taken(path: str, body: str) -> None:
    [route] = [route for route in ROUTES if route.key == ("POST", path)]
    model: Any = route.bodies["application/json"]
    assert model.model_validate_json(body).model_fields_set


BODY_EXAMPLES = {
    f"{route.path}: {name}": (route, body) for route in ROUTES for name, body in route.examples.items()
}


@pytest.mark.parametrize(("route", "body"), BODY_EXAMPLES.values(), ids=BODY_EXAMPLES)
def test_an_example_is_a_body_that_is_taken(route: Any, body: Any) -> None:
    assert route.bodies["application/json"].model_validate_json(json.dumps(body)).model_fields_set


def test_every_json_body_has_examples_because_what_a_viewer_makes_up_is_refused() -> None:
    for route in ROUTES:
        assert route.examples or "application/json" not in route.bodies, route.path


def test_examples_are_shown_where_a_body_cannot_be_empty() -> None:
    paths = build_document(ROUTES, needs_key=False)["paths"]
    for path in ("/v1/search", "/v1/search/batch", "/v1/recommend", "/v1/contents", "/v1/embed"):
        assert paths[path]["post"]["requestBody"]["content"]["application/json"]["examples"]


def test_every_route_stands_under_a_heading() -> None:
    document = build_document(ROUTES, needs_key=False)
    headings = [tag["name"] for tag in document["tags"]]
    assert len(set(headings)) == len(headings)
    for operations in document["paths"].values():
        for operation in operations.values():
            [heading] = operation["tags"]
            assert heading in headings
