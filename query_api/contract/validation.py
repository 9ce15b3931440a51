"""Turn JSON, values and texts into models. Whatever is wrong with them becomes an `ApiError` here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, from_json

from query_api.contract.json_errors import json_problem
from query_api.contract.json_size import count_byte
from query_api.contract.messages import HINT, message_of
from query_api.contract.models import MAX_SHARDS, Request
from query_api.contract.utf8 import without_mark
from query_api.contract.vectors import errors_of_one_form
from query_api.errors import ApiError, ErrorDetail

MAX_DETAILS = 10
MAX_MEMBERS = MAX_SHARDS  # of one JSON object
MAX_FIELD_CHARACTERS = 200  # of the path of a wrong field; a client chooses the names of unknown ones

_CODES = {
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
    "finite_number": "not_finite",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "too_long": "out_of_range",
    "filter_too_large": "out_of_range",
    "too_costly": "out_of_range",
    "too_short": "out_of_range",
    "string_too_long": "out_of_range",
    "string_too_short": "out_of_range",
    "bytes_too_short": "out_of_range",
    "bad_base64": "bad_base64",
    "wrong_dimension": "wrong_dimension",
    "one_query_required": "one_query_required",
    "too_many_hits": "too_many_hits",
}
EXAMPLES: Mapping[str, str] = MappingProxyType(  # for objects where people often send a plain text
    {
        "BatchRequest": '{"queries": [{"text": "a red shoe"}]}',
        "BulkDeleteRequest": '{"filter": {"must": [{"field": "source", "equals": "shop"}]}}',
        "EmbedContent": '{"text": "a red shoe"}',
        "EmbedRequest": '{"contents": [{"text": "a red shoe"}]}',
        "FieldCondition": '{"field": "source", "equals": "shop"}',
        "Filter": '{"must": [{"field": "source", "equals": "shop"}]}',
        "Query": '{"text": "a red shoe"}',
        "RecommendRequest": '{"positive": [{"content_id": "shoe-1"}]}',
        "SearchRequest": '{"text": "a red shoe"}',
        "Term": '{"text": "a red shoe"}',
        "UncheckedUploads": '{"contents": [{"content_id": "shoe-1", "content": {"text": "a red shoe"}}]}',
        "UploadContent": '{"text": "a red shoe"}',
        "UploadRequest": '{"content_id": "shoe-1", "content": {"text": "a red shoe"}}',
        "WeightedExample": '{"content_id": "shoe-1"}',
    }
)
ModelT = TypeVar("ModelT", bound=Request)


def model_from_json(model: type[ModelT], body: bytes) -> ModelT:
    """Parse and validate in one step.

    Raises `ApiError`: `bad_json` if the body is not JSON, a 422 if it does not fit the model.
    """
    if len(body) > MAX_MEMBERS and count_byte(body, b":") > MAX_MEMBERS:
        return model_from_values(model, value_from_json(body, "the body"))
    try:
        return model.model_validate_json(without_mark(body))
    except ValidationError as error:
        if (found := error.errors(include_url=False, include_input=False)[0])["type"] == "json_invalid":
            raise ApiError("bad_json", f"the body is not JSON: {json_problem(body, found['msg'])}") from None
        raise error_from_validation(error, model) from None


def model_from_values(model: type[ModelT], values: object) -> ModelT:
    _refuse_many_members(values)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise error_from_validation(error, model) from None


def model_from_texts(model: type[ModelT], texts: Mapping[str, str]) -> ModelT:
    try:
        return model.model_validate_strings(texts)
    except ValidationError as error:
        raise error_from_validation(error, model) from None


def object_from_json(text: bytes | str, name: str) -> dict[str, Any]:
    """Read the JSON object that a field or part called `name` must hold."""
    value = value_from_json(text, name)
    if not isinstance(value, dict):
        raise ApiError("invalid_value", f"{name} must be a JSON object")
    return value


def value_from_json(text: bytes | str, name: str) -> Any:
    try:
        return from_json(without_mark(text) if isinstance(text, bytes) else text)
    except ValueError as error:
        raise ApiError("bad_json", f"{name} is not JSON: {json_problem(text, str(error))}") from None


def _refuse_many_members(value: object) -> None:
    """Refuse an object of very many members before pydantic builds an error for each unknown one."""
    if isinstance(value, dict):
        if len(value) > MAX_MEMBERS:
            message = f"an object has {len(value)} fields; none may have more than {MAX_MEMBERS}"
            raise ApiError("out_of_range", message)
        value = value.values()
    elif not isinstance(value, list):
        return
    for part in value:
        if isinstance(part, (dict, list)):
            _refuse_many_members(part)


def error_from_validation(error: ValidationError, model: type[BaseModel] | None = None) -> ApiError:
    """Build the error for what is wrong; `model` is that of the whole body, whose fields may be suggested."""
    found = errors_of_one_form(error.errors(include_url=False, include_input=False))
    details = [_detail(item, model) for item in found[:MAX_DETAILS]]
    details.sort(key=lambda detail: HINT not in detail["message"])  # it explains what is missing, too
    first = details[0]
    return ApiError(
        first["code"], f"{first['field']}: {first['message']}".removeprefix(": "), details=details
    )


def shortened(text: str, max_characters: int) -> str:
    """Cut a text that a client may have made long; an ellipsis says that it was cut."""
    return text if len(text) <= max_characters else f"{text[:max_characters]}…"


def _detail(item: ErrorDetails, model: type[BaseModel] | None) -> ErrorDetail:
    return {
        "field": shortened(".".join(str(part) for part in item["loc"]), MAX_FIELD_CHARACTERS),
        "code": _CODES.get(item["type"], "invalid_value"),
        "message": _message(item, model),
    }


def _message(item: ErrorDetails, model: type[BaseModel] | None) -> str:
    example = EXAMPLES.get(item.get("ctx", {}).get("class_name", ""))
    if item["type"] == "model_type" and example is not None:
        return f"must be an object such as {example}"
    return message_of(item, model)
