"""Read bodies and query strings: into bytes, the parts of a form, and models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import unquote_to_bytes

from aiohttp import web
from pydantic import BaseModel

from query_api.contract.json_size import MAX_CONTAINERS, has_few_containers, is_small_beside_pictures
from query_api.contract.media_types import wrong_media_type
from query_api.contract.route import JSON
from query_api.contract.validation import ModelT, model_from_json, model_from_texts
from query_api.errors import ApiError, ErrorDetail
from query_api.http.bodies.forms import parts_of_form
from query_api.http.bodies.inflation import inflate
from query_api.serving.workers import WORKERS

SMALL_BODY_BYTES = 128 * 1024
"""Parsed in less than a millisecond. A batch of 16 vectors of 512 numbers has 90,000 bytes."""

MAX_JSON_BYTES = web.AppKey("max_json_bytes", int)  # beside pictures

ParsedT = TypeVar("ParsedT")


async def read_json_body(
    request: web.Request, model: type[ModelT], media_types: Sequence[str] = (JSON,)
) -> ModelT:
    if request.content_type not in media_types:
        raise wrong_media_type(request.headers, " or ".join(media_types))
    refuse_fields_of_body(request, model)
    body = await read_body(request)
    refuse_large_json(request, body)
    return await parse_body(request, len(body), lambda: model_from_json(model, body))


def refuse_fields_of_body(request: web.Request, model: type[BaseModel]) -> None:
    """Refuse a field of the body that is in the address, where it would be passed over in silence."""
    for name in request.query:
        if name in model.model_fields:
            message = "this field belongs into the JSON body, not into the address"
            detail = ErrorDetail(field=name, code="unknown_field", message=message)
            raise ApiError("unknown_field", f"{name}: {message}", details=[detail])


def refuse_large_json(request: web.Request, body: bytes) -> None:
    """Refuse JSON that is large beside its pictures before it is parsed: parsing holds up all others."""
    max_bytes = request.app[MAX_JSON_BYTES]
    if not is_small_beside_pictures(body, max_bytes):
        raise ApiError("body_too_large", f"JSON may have at most {max_bytes} bytes beside its pictures")
    if not has_few_containers(body):
        raise ApiError("bad_json", f"JSON may have at most {MAX_CONTAINERS} lists and objects")


async def parse_body(request: web.Request, size_bytes: int, parse: Callable[[], ParsedT]) -> ParsedT:
    """Parse a small body on the event loop, and a larger one in a worker, because it would block the loop."""
    if size_bytes <= SMALL_BODY_BYTES:
        return parse()
    return await request.app[WORKERS].run(parse)


def read_parameters(request: web.Request, model: type[ModelT]) -> ModelT:
    refuse_ambiguous(request)
    return model_from_texts(model, dict(request.query))


def read_known_parameters(request: web.Request, model: type[ModelT]) -> ModelT:
    """Read the parameters that the model knows, as earlier services did: others are passed over.

    Of a parameter that is given twice, the last one counts.
    """
    _refuse_other_encodings(request)
    known = {name: text for name, text in request.query.items() if name in model.model_fields}
    return model_from_texts(model, known)


def refuse_ambiguous(request: web.Request) -> None:
    """Refuse an address that can be read in two ways: with a parameter twice, or not in UTF-8."""
    _refuse_other_encodings(request)
    if len(request.query) != len(set(request.query)):
        raise ApiError("invalid_value", "a parameter is given twice")


def _refuse_other_encodings(request: web.Request) -> None:
    if "%" in request.raw_path and not _is_utf8(unquote_to_bytes(request.raw_path)):
        raise ApiError("bad_request", "the address is not UTF-8")


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


async def read_body(request: web.Request) -> bytes:
    """Return the body, inflated. `http/bodies/receiver.py` has received it already and has bounded its size.

    A compressed body is inflated here, by a request that is being worked on, and not where it is received,
    so that no more bodies are held inflated than requests are worked on.
    """
    body = await request.read()
    if (encoding := content_encoding(request)) == "identity":
        return body
    return await request.app[WORKERS].run(inflate, body, encoding, request.client_max_size)


def content_encoding(request: web.Request) -> str:
    return request.headers.get("Content-Encoding", "identity").strip().lower()


async def read_parts(request: web.Request) -> dict[str, bytes]:
    """Read the parts of a form. `http/bodies/receiver.py` has bounded their total size."""
    content_type, body = request.headers.get("Content-Type", ""), await read_body(request)
    return await parse_body(request, len(body), lambda: parts_of_form(content_type, body))
