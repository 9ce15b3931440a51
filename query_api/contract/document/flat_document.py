"""The OpenAPI document as it is served: flat, because generators of clients understand no more.

`openapi.py` describes requests exactly: rules between fields, null for a field that is left out, patterns.
The tests send requests by that description. Generators turn such rules into types that nobody can use, or
fail. So they are left out here; the descriptions say them in words, and a 422 says which one is broken.
Where a route takes JSON, its other kinds of body are left out too, with their parameters: its description
names them. A list that may also be given in base64 is a list here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from query_api.contract.document.named_schemas import COMPONENTS, NamedSchemas

Json: TypeAlias = dict[str, Any]

JSON = "application/json"

_RULES = ("oneOf", "anyOf", "allOf", "not")
_NULL = {"type": "null"}
_LEFT_OUT = ("title", "pattern", "propertyNames")
_INT32_MAX = 2**31 - 1


def flat_document(document: Mapping[str, Any]) -> Json:
    """Return the document with flat schemas. Whatever the given document allows, the result allows too."""
    schemas = document["components"]["schemas"]
    paths = {
        path: {method: _flat_operation(operation, schemas) for method, operation in operations.items()}
        for path, operations in document["paths"].items()
    }
    flat = _used({name: _flat(schema) for name, schema in schemas.items()}, paths)
    named = NamedSchemas()
    flat = {name: named.of_component(name, schema) for name, schema in flat.items()}
    for operation in (operation for operations in paths.values() for operation in operations.values()):
        operation["parameters"] = [_with_named_schema(one, named) for one in operation["parameters"]]
    components = {**document["components"], "schemas": dict(sorted({**flat, **named.components}.items()))}
    return {**document, "paths": paths, "components": components}


def _with_named_schema(parameter: Mapping[str, Any], named: NamedSchemas) -> Json:
    return {**parameter, "schema": named.of(parameter["schema"], parameter["name"])}


def _flat_operation(operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Json:
    flat = dict(operation)
    contents = _contents_for_clients(operation.get("requestBody", {}).get("content", {}))
    if contents:
        flat["requestBody"] = {**operation["requestBody"], "content": _flat_contents(contents)}
    in_body = _fields_of(contents, schemas)
    flat["parameters"] = [
        _flat_parameter(one) for one in operation["parameters"] if one["name"] not in in_body
    ]
    flat["responses"] = {
        status: {**answer, "content": _flat_contents(answer["content"])}
        for status, answer in flat["responses"].items()
    }
    return flat


def _contents_for_clients(contents: Mapping[str, Any]) -> Mapping[str, Any]:
    """Keep JSON alone where a route takes it. Most generators take one kind of body only."""
    return {JSON: contents[JSON]} if JSON in contents else contents


def _fields_of(contents: Mapping[str, Any], schemas: Mapping[str, Any]) -> frozenset[str]:
    """Return the fields of a JSON body, and of the queries in it.

    Parameters of the same name are for bodies that are not JSON.
    """
    if JSON not in contents:
        return frozenset()
    name = contents[JSON]["schema"]["$ref"].removeprefix(COMPONENTS)
    properties = schemas[name]["properties"]
    items = [value["items"].get("$ref", "") for value in properties.values() if "items" in value]
    in_lists = [schemas[ref.removeprefix(COMPONENTS)] for ref in items if ref]
    return frozenset(properties).union(*(model.get("properties", ()) for model in in_lists))


def _flat_parameter(parameter: Mapping[str, Any]) -> Json:
    return _with_default_in_words({**parameter, "schema": _flat(parameter["schema"])}, parameter["schema"])


def _flat_contents(contents: Mapping[str, Any]) -> Json:
    return {kind: {**content, "schema": _flat(content["schema"])} for kind, content in contents.items()}


def _flat(schema: Any) -> Any:
    """Return a schema without rules between fields, patterns, titles and defaults."""
    if not isinstance(schema, dict):
        return schema
    if "properties" in schema:
        return _flat_object(schema)
    names = schema.get("propertyNames", {}).get("enum")
    flat = {key: value for key, value in schema.items() if key not in (*_LEFT_OUT, "default")}
    if names is not None:
        entry = _flat(flat.pop("additionalProperties"))
        return {**flat, "properties": dict.fromkeys(names, entry)}
    for key in ("items", "additionalProperties"):
        if key in flat:
            flat[key] = _flat(flat[key])
    if flat.get("type") == "integer" and flat.get("maximum", _INT32_MAX + 1) > _INT32_MAX:
        flat["format"] = "int64"  # some languages would take 32 bits
    return _flat_union(flat) if "anyOf" in flat else flat


def _flat_object(schema: Mapping[str, Any]) -> Json:
    flat = {key: value for key, value in schema.items() if key not in (*_LEFT_OUT, *_RULES)}
    required = schema.get("required", ())
    flat["properties"] = {
        name: _flat_property(value, is_required=name in required, is_request=_is_request(schema))
        for name, value in schema["properties"].items()
    }
    return flat


def _is_request(schema: Mapping[str, Any]) -> bool:
    return schema.get("additionalProperties") is False


def _flat_property(schema: Mapping[str, Any], *, is_required: bool, is_request: bool) -> Json:
    """Leave null out where a request can leave the field out instead."""
    flat = dict(schema)
    if is_request and not is_required and "anyOf" in flat:
        flat["anyOf"] = [choice for choice in flat["anyOf"] if choice != _NULL]
    return _with_default_in_words(_flat(flat), schema)


def _flat_union(schema: Json) -> Json:
    """Join a union of one type and null to one schema. Of a list and its base64 the list is kept."""
    choices = [_flat(choice) for choice in schema.pop("anyOf")]
    if {"type": "number"} in choices:  # which a whole number is too
        choices = [choice for choice in choices if choice.get("type") != "integer"]
    if any(choice.get("type") == "array" for choice in choices):
        choices = [choice for choice in choices if choice.get("contentEncoding") != "base64"]
    values = [choice for choice in choices if choice != _NULL]
    if len(values) > 1:
        return {**schema, "anyOf": choices}
    [value] = values
    if len(choices) == 1:
        return {**value, **schema}
    if "type" in value and "enum" not in value:
        return {**value, "type": [value["type"], "null"], **schema}
    return {**schema, "anyOf": choices}


def _with_default_in_words(flat: Json, schema: Mapping[str, Any]) -> Json:
    """Say a default in the description. Generated clients would send it with every request otherwise."""
    default = schema.get("default")
    if default in (None, "", [], {}):
        return flat
    text = str(default).lower() if isinstance(default, bool) else str(default)
    words = f"{flat.get('description', '')} The default is {text}.".strip()
    return {**flat, "description": words}


def _used(schemas: Mapping[str, Any], paths: Any) -> dict[str, Any]:
    """Return the components that the paths refer to, directly or not."""
    used: set[str] = set()
    waiting = [*_references(paths)]
    while waiting:
        name = waiting.pop()
        if name not in used:
            used.add(name)
            waiting.extend(_references(schemas[name]))
    return {name: schema for name, schema in schemas.items() if name in used}


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"].removeprefix(COMPONENTS)] if isinstance(node.get("$ref"), str) else []
        return own + [name for value in node.values() for name in _references(value)]
    if isinstance(node, list):
        return [name for value in node for name in _references(value)]
    return []
