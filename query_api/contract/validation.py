"""Requests into models: every way in which one can be malformed ends here as an `ApiError`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from aiohttp import BodyPartReader, MultipartReader, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from clip_index.row_filter import METADATA_PREFIX
from query_api.app_keys import WORKERS
from query_api.contract.filters import Filter, filter_from_texts
from query_api.contract.models import Request
from query_api.errors import ApiError, ErrorDetail
from query_api.search.models import SearchRequest
from query_api.search.texts import SearchForm, SearchParameters

MAX_PARTS = 16
MAX_DETAILS = 10
_AS_IT_IS = ("7bit", "8bit", "binary")
SMALL_BODY_BYTES = 64 * 1024  # parsed on the event loop; larger ones in a worker

_CODES = {
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
    "finite_number": "not_finite",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
    "too_long": "out_of_range",
    "too_short": "out_of_range",
    "string_too_long": "out_of_range",
    "string_too_short": "out_of_range",
    "bytes_too_short": "out_of_range",
    "bad_base64": "bad_base64",
    "one_query_required": "one_query_required",
    "too_many_hits": "too_many_hits",
}
_MESSAGES = {  # in place of what pydantic says, which speaks to who wrote the model
    "extra_forbidden": "there is no such field",
    "missing": "is missing",
}
EXAMPLES: Mapping[str, str] = MappingProxyType(  # of objects that people write as a plain text first
    {
        "EmbedContent": '{"text": "a red shoe"}',
        "FieldCondition": '{"field": "source", "equals": "shop"}',
        "Filter": '{"must": [{"field": "source", "equals": "shop"}]}',
        "Query": '{"text": "a red shoe"}',
        "Term": '{"text": "a red shoe"}',
        "UploadContent": '{"text": "a red shoe"}',
        "WeightedExample": '{"content_id": "shoe-1"}',
    }
)
ModelT = TypeVar("ModelT", bound=Request)
ParsedT = TypeVar("ParsedT")


async def read_search_body(request: web.Request) -> SearchRequest:
    """Read a search from a JSON or a multipart body."""
    if request.content_type == "application/json":
        return await read_json_body(request, SearchRequest)
    if request.content_type == "multipart/form-data":
        parts = await read_parts(request)
        return await parse_body(request, len(parts.get("query", b"")), lambda: _search_from_parts(parts))
    message = f"send application/json or multipart/form-data, not {request.content_type}"
    raise ApiError("unsupported_media_type", message)


async def read_json_body(request: web.Request, model: type[ModelT]) -> ModelT:
    if request.content_type != "application/json":
        raise ApiError("unsupported_media_type", f"send application/json, not {request.content_type}")
    body = await read_body(request)
    return await parse_body(request, len(body), lambda: model_from_json(model, body))


async def parse_body(request: web.Request, size_bytes: int, parse: Callable[[], ParsedT]) -> ParsedT:
    """Parse on the event loop what is small, in a worker what would hold the loop up."""
    if size_bytes <= SMALL_BODY_BYTES:
        return parse()
    return await request.app[WORKERS].run(parse)


def read_search_parameters(request: web.Request) -> SearchRequest:
    """Read a search from the query string; `q` is its text."""
    refuse_ambiguous(request)
    metadata = {name: text for name, text in request.query.items() if name.startswith(METADATA_PREFIX)}
    texts = {name: text for name, text in request.query.items() if name not in metadata}
    fields = model_from_texts(SearchParameters, texts).model_dump(exclude_unset=True)
    if ("q" in fields) == ("content_id" in fields):
        raise ApiError("one_query_required", "needs either q, a text, or content_id")
    if "q" in fields:
        fields["text"] = fields.pop("q")
    wanted = {name: fields.pop(name) for name in ("source", "owner_id") if name in fields} | metadata
    if wanted:
        fields["filter"] = _filter_of(wanted)
    return model_from_values(SearchRequest, fields)


def _filter_of(wanted: Mapping[str, str]) -> Filter:
    try:
        return filter_from_texts(wanted)
    except ValidationError as error:
        raise _error_from_validation(error) from None


def read_parameters(request: web.Request, model: type[ModelT]) -> ModelT:
    refuse_ambiguous(request)
    return model_from_texts(model, dict(request.query))


def refuse_ambiguous(request: web.Request) -> None:
    """Refuse an address that would be guessed at: a second value, bytes that are no text."""
    if "%" in request.raw_path and not _is_utf8(unquote_to_bytes(request.raw_path)):
        raise ApiError("bad_request", "the address is not UTF-8")
    if len(request.query) != len(set(request.query)):
        raise ApiError("invalid_value", "a parameter is given twice")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def model_from_json(model: type[ModelT], body: bytes) -> ModelT:
    """Parse and validate at once; `bad_json` for what is no JSON, a 422 for what is none of ours."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _error_from_validation(error) from None


def model_from_values(model: type[ModelT], values: object) -> ModelT:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _error_from_validation(error) from None


def model_from_texts(model: type[ModelT], texts: Mapping[str, str]) -> ModelT:
    try:
        return model.model_validate_strings(texts)
    except ValidationError as error:
        raise _error_from_validation(error) from None


def _search_from_parts(parts: Mapping[str, bytes]) -> SearchRequest:
    fields = dict(parts)
    image = fields.pop("image", None)
    query = fields.pop("query", None)
    if query is not None and fields:
        raise ApiError(
            "bad_multipart", "give the fields in a JSON part named query or as plain parts, not both"
        )
    values = object_from_json(query, "query") if query is not None else _values_from_plain_fields(fields)
    if image is not None:
        values["image"] = image
    return model_from_values(SearchRequest, values)


def object_from_json(text: bytes | str, name: str) -> dict[str, Any]:
    """Read the JSON object that a field or part called `name` must hold."""
    try:
        value = from_json(text)
    except ValueError as error:
        raise ApiError("bad_json", f"{name} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ApiError("invalid_value", f"{name} must be a JSON object")
    return value


def _values_from_plain_fields(fields: Mapping[str, bytes]) -> dict[str, Any]:
    try:
        texts = {name: value.decode() for name, value in fields.items()}
    except UnicodeDecodeError:
        raise ApiError("bad_multipart", "a plain part is not UTF-8") from None
    return model_from_texts(SearchForm, texts).model_dump(exclude_unset=True)


async def read_body(request: web.Request) -> bytes:
    """Return the body, which the receiver has read and bounded."""
    return await request.read()


async def read_parts(request: web.Request) -> dict[str, bytes]:
    """Read the parts of a form, bounded in number; the receiver has bounded their bytes together."""
    parts: dict[str, bytes] = {}
    try:
        reader = MultipartReader(request.headers, _stream_of(request, await request.read()))
        while (part := await reader.next()) is not None:
            name, value = await _read_part(part)
            if name in parts or len(parts) == MAX_PARTS:
                raise ApiError("bad_multipart", f"a part is given twice, or there are more than {MAX_PARTS}")
            parts[name] = value
    except (ValueError, AssertionError, HttpProcessingError) as error:  # aiohttp's for malformed parts
        raise ApiError("bad_multipart", str(error) or "malformed multipart body") from None
    return parts


def _stream_of(request: web.Request, body: bytes) -> StreamReader:
    """A body that is there already, as aiohttp's reader of parts takes it."""
    stream = StreamReader(request.protocol, limit=len(body) + 1)  # never so full that the socket is paused
    stream.feed_data(body)
    stream.feed_eof()
    return stream


async def _read_part(part: object) -> tuple[str, bytes]:
    if not isinstance(part, BodyPartReader) or not part.name:
        raise ApiError("bad_multipart", "every part needs a name, and none may hold parts of its own")
    if part.headers.get("Content-Transfer-Encoding", "binary").lower() not in _AS_IT_IS:
        raise ApiError("bad_multipart", "send parts as they are, without a Content-Transfer-Encoding")
    return part.name, bytes(await part.read())


def _error_from_validation(error: ValidationError) -> ApiError:
    found = error.errors(include_url=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return ApiError("bad_json", found[0]["msg"])
    details = [_detail(item) for item in found[:MAX_DETAILS]]
    first = details[0]
    return ApiError(
        first["code"], f"{first['field']}: {first['message']}".removeprefix(": "), details=details
    )


def _detail(item: ErrorDetails) -> ErrorDetail:
    return {
        "field": ".".join(str(part) for part in item["loc"]),
        "code": _CODES.get(item["type"], "invalid_value"),
        "message": _message(item),
    }


def _message(item: ErrorDetails) -> str:
    example = EXAMPLES.get(item.get("ctx", {}).get("class_name", ""))
    if item["type"] == "model_type" and example is not None:
        return f"must be an object such as {example}"
    return _MESSAGES.get(item["type"], item["msg"])
