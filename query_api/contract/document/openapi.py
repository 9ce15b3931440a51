"""The OpenAPI document, made from the routes and from the models that parse requests and write answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from query_api.contract.models import ErrorAnswer
from query_api.contract.route import FORM, JSON, METHODS_WITH_BODY, OCTETS, Described, Route
from query_api.errors import STATUSES

Mode: TypeAlias = Literal["validation", "serialization"]
Names: TypeAlias = Mapping[Any, Mapping[str, Any]]  # (model, mode) → its reference

OPENAPI_VERSION = "3.1.0"
API_VERSION = "1"
DESCRIPTION = (
    "Search and recommend contents by CLIP embeddings. Each answer says up to which offsets of the log it "
    "covers uploads; `min_offsets` sets a minimum. All errors have one shape and a stable code."
)
LEGACY = "legacy"  # the tag of routes that clients should leave
OF_EVERY_ROUTE = frozenset({"bad_request", "headers_too_large", "too_many_requests", "unknown_host"})
OF_GUARDED_ROUTES = frozenset(
    {"key_required", "unknown_key", "forbidden", "overloaded", "workers_stuck", "not_answered_in_time"}
)
OF_BODIES = frozenset({"bad_body", "request_timeout", "body_too_large"})
OF_VALUES = frozenset({"invalid_value", "unknown_field", "missing_field", "out_of_range"})
TAGS = {
    "search": "Find contents by texts, pictures, other contents or vectors.",
    "contents": "Read, upload, change and delete contents.",
    "browse": "Show the index without a query.",
    "health": "For whatever supervises the service.",
    LEGACY: "The calls of two earlier services. New clients should use the calls above.",
}
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
RETRY_AFTER = {"Retry-After": {"schema": {"type": "string"}, "description": "Seconds to wait."}}


def build_document(
    routes: Iterable[Route], *, needs_key: bool, dimension: int | None = None
) -> dict[str, Any]:
    """Build the document of those routes that have a tag; the others, which serve web pages, are hidden.

    `needs_key` says whether this service has API keys, `dimension` how long its encoder's vectors are.
    """
    routes = [route for route in routes if route.tag]
    names, schemas = _schemas_of(routes, dimension)
    paths: dict[str, dict[str, Any]] = defaultdict(dict)
    for route in routes:
        paths[route.path][route.method.lower()] = _operation(route, names, schemas, needs_key)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "cliptide",
            "version": API_VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The host that answered this document."}],
        "tags": [
            {"name": tag, "description": TAGS[tag]} for tag in dict.fromkeys(route.tag for route in routes)
        ],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": SECURITY_SCHEMES},
    }


def _schemas_of(routes: Iterable[Route], dimension: int | None) -> tuple[Names, dict[str, Any]]:
    """Return the references to the models of all routes, and the schemas of the models."""
    names, definitions = models_json_schema(
        [*_models_of(routes)], ref_template="#/components/schemas/{model}"
    )
    schemas: dict[str, Any] = definitions["$defs"]
    forms = (_schema(route.bodies[FORM], names, "validation") for route in routes if FORM in route.bodies)
    for name in {_model_name(form) for form in forms}:
        _forget_null(schemas[name])
    if dimension is not None:
        _bound_vectors(schemas, dimension)
    return names, schemas


def _model_name(reference: Mapping[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _forget_null(form: dict[str, Any]) -> None:
    """Remove null from a form's fields: a form cannot send it, and leaves optional fields out."""
    form["properties"] = {
        name: _without_null(schema) for name, schema in form["properties"].items() if not _is_null(schema)
    }


def _bound_vectors(schemas: Mapping[str, Any], dimension: int) -> None:
    """Say how many numbers the vectors in requests have."""
    for schema in schemas.values():
        if "vector" in schema.get("properties", ()) and schema.get("additionalProperties") is False:
            for choice in schema["properties"]["vector"]["anyOf"]:
                if choice["type"] == "array":
                    choice |= {"minItems": dimension, "maxItems": dimension}


def error_codes(route: Route) -> frozenset[str]:
    """Return every error code that a route may answer: its own, and those of every route of its kind."""
    codes = OF_EVERY_ROUTE | route.codes
    if route.access != "open":
        codes |= OF_GUARDED_ROUTES
    if route.method in METHODS_WITH_BODY:
        codes |= OF_BODIES
    if route.parameters or route.bodies:
        codes |= OF_VALUES
    if JSON in route.bodies:
        codes |= {"bad_json"}
    if route.bodies and OCTETS not in route.bodies:
        codes |= {"unsupported_media_type"}
    return codes


def status_of(code: str) -> int:
    """Return a code's status. The reasons of refused contents and events are a 422 unless listed."""
    return STATUSES.get(code, 422)


def _models_of(routes: Iterable[Route]) -> Iterable[tuple[type[BaseModel], Mode]]:
    found: dict[tuple[type[BaseModel], Mode], None] = {(ErrorAnswer, "serialization"): None}
    for route in routes:
        for answer in route.answers.values():
            if isinstance(answer, type):
                found[answer, "serialization"] = None
        for described in (*route.bodies.values(), route.parameters):
            if isinstance(described, type):
                found[described, "validation"] = None
    return found


def _operation(route: Route, names: Names, schemas: Mapping[str, Any], needs_key: bool) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name or route.handler.__name__,
        "tags": [route.tag],
        "summary": route.summary,
        "parameters": [*_path_parameters(route), *_query_parameters(route, names, schemas)],
        "responses": {**_answers(route, names), **_errors(route, names)},
    }
    if route.description:
        operation["description"] = route.description
    if route.bodies:
        content: dict[str, dict[str, Any]] = {
            kind: {"schema": _schema(body, names, "validation")} for kind, body in route.bodies.items()
        }
        if route.examples:
            content[JSON]["examples"] = {name: {"value": body} for name, body in route.examples.items()}
        operation["requestBody"] = {"required": True, "content": content}
    is_guarded = route.access == "admin" or (route.access != "open" and needs_key)
    operation["security"] = [{name: []} for name in SECURITY_SCHEMES] if is_guarded else []
    if route.tag == LEGACY:
        operation["deprecated"] = True
    return operation


def _schema(described: Described, names: Names, mode: Mode) -> Mapping[str, Any]:
    return names[described, mode] if isinstance(described, type) else described


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    parts = (part[1:-1] for part in route.path.split("/") if part.startswith("{"))
    schema = {"type": "string", "minLength": 1, "maxLength": 512}
    return [{"name": name, "in": "path", "required": True, "schema": schema} for name in parts]


def _query_parameters(route: Route, names: Names, schemas: Mapping[str, Any]) -> list[dict[str, Any]]:
    if route.parameters is None:
        return []
    model = schemas[_model_name(names[route.parameters, "validation"])]
    given = route.required_parameters
    required = model.get("required", ()) if given is None else given
    return [
        _query_parameter(field, schema, field in required)
        for field, schema in model["properties"].items()
        if not _is_null(schema)
    ]


def _query_parameter(name: str, schema: Mapping[str, Any], is_required: bool) -> dict[str, Any]:
    """Describe a parameter, without null, because a query string cannot send it."""
    schema = _without_null(schema)
    description = schema.pop("description", None)
    parameter = {"name": name, "in": "query", "required": is_required, "schema": schema}
    if schema.get("type") == "array":
        parameter |= {"style": "form", "explode": False}
    return parameter | ({"description": description} if description else {})


def _is_null(schema: Mapping[str, Any]) -> bool:
    """Whether a field admits null alone: the model has it, but a query string or form cannot give it."""
    return schema.get("type") == "null"


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    schema = dict(schema)
    choices = [choice for choice in schema.pop("anyOf", ()) if choice != {"type": "null"}]
    if len(choices) == 1:
        schema |= choices[0]
    elif choices:
        schema["anyOf"] = choices
    return {key: value for key, value in schema.items() if key != "default" or value is not None}


def _answers(route: Route, names: Names) -> dict[str, Any]:
    return {
        str(status): {
            "description": "Success",
            "content": {route.answer_type: {"schema": _schema(answer, names, "serialization")}},
        }
        for status, answer in route.answers.items()
    }


def _errors(route: Route, names: Names) -> dict[str, Any]:
    codes: dict[int, list[str]] = defaultdict(list)
    for code in sorted(error_codes(route)):
        codes[status_of(code)].append(code)
    content = {JSON: {"schema": names[ErrorAnswer, "serialization"]}}
    return {
        str(status): {
            "description": f"Error codes: {', '.join(of_status)}.",
            "content": content,
            **({"headers": RETRY_AFTER} if status in (429, 503) else {}),
        }
        for status, of_status in sorted(codes.items())
    }
