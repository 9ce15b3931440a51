"""The served document holds nothing that generators of clients stumble over."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from query_api.contract.document.flat_document import flat_document
from query_api.contract.document.named_schemas import NAMES, NAMES_OF_MAPS, needs_name
from query_api.contract.document.openapi import build_document
from query_api.route_table import ROUTES
from tests.query_api.conftest import StartService
from tests.query_api.small_index import SmallIndex

EXACT = build_document(ROUTES, needs_key=False, dimension=4)
FLAT = flat_document(EXACT)
SCHEMAS: Mapping[str, Any] = FLAT["components"]["schemas"]
OPERATIONS = {
    operation["operationId"]: operation
    for methods in FLAT["paths"].values()
    for operation in methods.values()
}


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every object of the document but examples, with its path."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            if key != "examples":
                yield from nodes(value, f"{path}/{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from nodes(value, f"{path}/{number}")


def test_the_document_is_valid_openapi() -> None:
    assert list(OpenAPIV31SpecValidator(FLAT).iter_errors()) == []


def test_no_object_has_rules_between_its_fields() -> None:
    for path, node in nodes(FLAT):
        if "properties" in node and isinstance(node["properties"], dict):
            assert not {"oneOf", "anyOf", "allOf", "not"} & set(node), path


def test_no_schema_is_a_boolean_but_what_closes_an_object() -> None:
    for path, node in nodes(SCHEMAS):
        for key, value in node.items():
            assert not isinstance(value, bool) or key == "additionalProperties", f"{path}/{key}"


def test_no_pattern_is_left_for_a_client_to_misread() -> None:
    assert [path for path, node in nodes(FLAT) if "pattern" in node] == []


def test_no_default_is_left_that_clients_would_send_with_every_request() -> None:
    assert [path for path, node in nodes(FLAT["paths"]) if "default" in node.get("schema", {})] == []
    assert [path for path, node in nodes(SCHEMAS) if "default" in node and node.get("type") != "object"] == []
    assert SCHEMAS["SearchRequest"]["properties"]["k"]["description"].endswith("The default is 10.")


def test_offsets_and_versions_have_64_bits() -> None:
    assert SCHEMAS["PublishedAnswer"]["properties"]["next_offset"]["format"] == "int64"
    assert SCHEMAS["UploadRequest"]["properties"]["version"]["format"] == "int64"
    assert "format" not in SCHEMAS["SearchRequest"]["properties"]["k"]


def test_generators_call_no_type_by_the_place_where_they_meet_it_first() -> None:
    inside = {
        f"{name}/{key}": SCHEMAS[name][key]
        for name in SCHEMAS
        for key in ("properties", "items", "anyOf")
        if key in SCHEMAS[name]
    }
    parameters = {
        name: [one["schema"] for one in operation["parameters"]] for name, operation in OPERATIONS.items()
    }
    found = [
        path for path, node in nodes({**inside, **parameters}) if path.count("/") > 2 and needs_name(node)
    ]
    assert found == []
    value = SCHEMAS["Metadata"]["additionalProperties"]
    assert value == {"$ref": "#/components/schemas/MetadataValue"}


def test_every_map_has_a_name_too() -> None:
    """Without one it would be called `HitAnswerMetadataType0`, by the place where a generator meets it."""
    inside = {f"{name}/properties": SCHEMAS[name].get("properties", {}) for name in SCHEMAS}
    assert [path for path, node in nodes(inside) if isinstance(node.get("additionalProperties"), dict)] == []
    assert SCHEMAS["HitAnswer"]["properties"]["metadata"] == {
        "anyOf": [{"$ref": "#/components/schemas/Metadata"}, {"type": "null"}],
        "description": "Only if `include` names it.",
    }


def test_every_name_of_a_schema_is_used() -> None:
    assert {*NAMES.values(), *NAMES_OF_MAPS.values()} <= set(SCHEMAS)


def test_every_operation_has_one_shape_of_success() -> None:
    for name, operation in OPERATIONS.items():
        contents = [answer["content"] for status, answer in operation["responses"].items() if status < "300"]
        shapes = {json.dumps(content, sort_keys=True) for content in contents}
        assert len(shapes) == 1, name
        assert "anyOf" not in shapes.pop(), name


def test_every_operation_says_whether_it_needs_a_key() -> None:
    for document in (FLAT, flat_document(build_document(ROUTES, needs_key=True))):
        assert all("security" in one for methods in document["paths"].values() for one in methods.values())
        assert document["servers"][0]["url"] == "/"


def test_calls_of_earlier_services_are_deprecated_and_no_others() -> None:
    legacy = {name for name, operation in OPERATIONS.items() if operation["tags"] == ["legacy"]}
    assert {name for name, operation in OPERATIONS.items() if operation.get("deprecated")} == legacy
    assert len(legacy) == 7


EXAMPLES = {
    f"{name}: {title}": (content["schema"], example["value"])
    for name, operation in OPERATIONS.items()
    for content in operation.get("requestBody", {}).get("content", {}).values()
    for title, example in content.get("examples", {}).items()
}


@pytest.mark.parametrize(("schema", "body"), EXAMPLES.values(), ids=EXAMPLES)
def test_an_example_fits_its_flat_schema(schema: Any, body: Any) -> None:
    root = {**schema, "components": FLAT["components"]}
    assert [error.message for error in OAS31Validator(root).iter_errors(body)] == []


def test_what_the_exact_document_allows_the_flat_one_allows_too() -> None:
    """Both keep the same properties, and the flat one requires no more of them."""
    exact = EXACT["components"]["schemas"]
    for name, schema in SCHEMAS.items():
        if name not in exact and name in (*NAMES.values(), *NAMES_OF_MAPS.values()):
            continue  # a part of the exact schema, with a name of its own
        assert set(schema.get("properties", ())) == set(exact[name].get("properties", ())), name
        assert schema.get("required", []) == exact[name].get("required", []), name


async def test_the_flat_document_is_the_one_that_is_served(
    small_index: SmallIndex, start_service: StartService
) -> None:
    client = await start_service(small_index)
    served = await (await client.get("/openapi.json")).json()
    assert served["components"]["schemas"].keys() == SCHEMAS.keys()
    assert "oneOf" not in served["components"]["schemas"]["SearchRequest"]
