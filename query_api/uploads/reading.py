"""Turn requests into upload, patch and delete events.

A body is JSON, a form with the image, or the content itself. Events are checked by the same
rules as in the consumer (`schemas.validation`), so that an event that would become a dead letter
there is refused here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web

from clip_index.encoder.picture_signatures import picture_format
from query_api.contract.media_types import looks_like_json, wrong_media_type
from query_api.contract.models import Request, picture_of_part
from query_api.contract.route import JSON, MERGE_PATCH, OCTETS
from query_api.contract.utf8 import text_from_bytes
from query_api.contract.validation import model_from_texts, model_from_values, object_from_json
from query_api.errors import ApiError, EventRefused
from query_api.http.bodies.form_fields import read_plain_fields
from query_api.http.bodies.reading import (
    parse_body,
    read_body,
    read_json_body,
    read_parameters,
    read_parts,
    refuse_large_json,
)
from query_api.uploads.models import (
    DeleteParameters,
    PatchParameters,
    PatchRequest,
    RawUploadParameters,
    UploadForm,
    UploadRequest,
    WriteParameters,
)
from schemas.errors import BadEvent
from schemas.events import Event, ImageContent, TextContent, UploadEvent
from schemas.json_format import event_from_json
from schemas.validation import METADATA_PREFIX, validate_event

IMAGE_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif")  # in the document; others are taken too
_WANTED = "application/json, multipart/form-data, text/plain or a picture"
_OCTETS = (OCTETS, "binary/octet-stream")
_UNREACHABLE = (".", "..")  # clients shorten an address with such a step, also if it is escaped
_OPTIONS = frozenset(WriteParameters.model_fields)


async def read_upload(request: web.Request) -> tuple[Event, WriteParameters]:
    """Read a valid event and the query string's options, or raise `ApiError`."""
    content_type = request.content_type
    if content_type == "application/json":
        parameters = read_parameters(request, WriteParameters)
        upload = await read_json_body(request, UploadRequest)
        return await parse_body(request, _size_of_upload(upload), lambda: build_event(upload)), parameters
    if content_type == "multipart/form-data":
        parameters = read_parameters(request, WriteParameters)
        parts = await read_parts(request)
        refuse_large_json(request, parts.get("event", b""))
        return await parse_body(request, _size_of(parts), lambda: _event_from_parts(parts)), parameters
    return await _read_raw(request, content_type)


def read_delete(request: web.Request) -> tuple[Event, WriteParameters]:
    """Read a delete event from the path and the query string."""
    parameters = read_parameters(request, DeleteParameters)
    fields = parameters.model_dump(exclude=set(_OPTIONS))
    document = {**fields, "content_id": request.match_info["content_id"], "operation": "delete"}
    return _validated(_event_from_document(document)), parameters


async def read_patch(request: web.Request) -> tuple[Event, WriteParameters]:
    """Read a patch event from the path, the query string and a JSON Merge Patch."""
    parameters = read_parameters(request, PatchParameters)
    patch = await read_json_body(request, PatchRequest, (JSON, MERGE_PATCH))
    document = {
        **parameters.model_dump(exclude=set(_OPTIONS)),
        **patch.model_dump(exclude_none=True),
        "content_id": request.match_info["content_id"],
        "operation": "patch",
        "remove": _removed_by(patch),
    }
    return _validated(_event_from_document(document)), parameters


def _removed_by(patch: PatchRequest) -> list[str]:
    nulls = [name for name in sorted(patch.model_fields_set) if getattr(patch, name) is None]
    entries = (patch.metadata or {}).items()
    return nulls + [f"{METADATA_PREFIX}{key}" for key, value in entries if value is None]


def build_event(upload: UploadRequest, content: TextContent | ImageContent | None = None) -> Event:
    """Build the event of a request; `EventRefused` if it breaks a rule.

    `content` is given if it came apart from the fields, as a body or a part of its own.
    """
    document = upload.model_dump(exclude_none=True)
    if content is None:
        return _validated(_event_from_document(document))
    event = _event_from_document({**document, "content": {"text": ""}})
    return _validated(replace(event, content=content) if isinstance(event, UploadEvent) else event)


async def _read_raw(request: web.Request, content_type: str) -> tuple[Event, WriteParameters]:
    body = await read_body(request)
    if content_type != "text/plain" and looks_like_json(body):
        raise wrong_media_type(request.headers, _WANTED)
    content = await parse_body(request, len(body), lambda: _content_from_body(body, request.headers))
    parameters = read_parameters(request, RawUploadParameters)
    upload = _upload_from_texts(parameters, without=_OPTIONS)
    return await parse_body(request, len(body), lambda: build_event(upload, content)), parameters


def _content_from_body(body: bytes, headers: Mapping[str, str]) -> TextContent | ImageContent:
    """Tell a picture from a text. The bytes decide, because many clients send a media type of their own.

    A body without a media type is octets.
    """
    content_type = headers.get("Content-Type", OCTETS).partition(";")[0].strip().lower()
    if content_type == "text/plain":
        return _text_unless_picture(body)
    if content_type.startswith("image/") or content_type in _OCTETS or picture_format(body) is not None:
        return ImageContent(body)
    raise wrong_media_type(headers, _WANTED)


def _text_unless_picture(body: bytes) -> TextContent | ImageContent:
    try:
        return TextContent(text_from_bytes(body))
    except ApiError:
        if picture_format(body) is None:
            raise
        return ImageContent(body)


def _size_of_upload(upload: UploadRequest) -> int:
    """Return the characters of an upload's content, which take the time of building its event."""
    content = upload.content
    return 0 if content is None else len(content.image or "") + len(content.text or "")


def _size_of(parts: Mapping[str, bytes]) -> int:
    return sum(map(len, parts.values()))


def _event_from_parts(parts: Mapping[str, bytes]) -> Event:
    """Build an event from a form: from the JSON part `event` or plain fields, and from the file `image`."""
    fields = dict(parts)
    image = fields.pop("image", None)
    event = fields.pop("event", None)
    if event is not None:
        if fields:
            raise ApiError(
                "bad_multipart", "give the fields in a JSON part named event or as plain parts, not both"
            )
        upload = model_from_values(UploadRequest, object_from_json(event, "event"))
        return build_event(upload, _one_content(image, None, has_another=upload.content is not None))
    form = model_from_texts(UploadForm, read_plain_fields(fields, UploadForm.model_fields))
    return build_event(_upload_from_texts(form, without=frozenset({"text"})), _one_content(image, form.text))


def _one_content(
    image: bytes | None, text: str | None, *, has_another: bool = False
) -> TextContent | ImageContent | None:
    if (image is not None) + (text is not None) + has_another > 1:
        raise ApiError("bad_multipart", "give exactly one content: an image or a text")
    if image is not None:
        return ImageContent(picture_of_part(image))
    return None if text is None else TextContent(text)


def _upload_from_texts(texts: Request, *, without: frozenset[str]) -> UploadRequest:
    values: dict[str, Any] = texts.model_dump(exclude_unset=True, exclude=set(without))
    if values.get("metadata") is not None:
        values["metadata"] = object_from_json(values["metadata"], "metadata")
    if str(values.get("occurred_at", "")).isdecimal():
        values["occurred_at"] = int(values["occurred_at"][:20])
    return model_from_values(UploadRequest, values)


def _event_from_document(document: Mapping[str, Any]) -> Event:
    try:
        return event_from_json(document, timestamp_ms=int(time.time() * 1000))
    except BadEvent as error:
        raise EventRefused(error.reason, error.detail) from None


def _validated(event: Event) -> Event:
    if isinstance(event, UploadEvent) and event.content_id in _UNREACHABLE:
        message = f"content_id: {event.content_id} cannot stand in a web address; choose another id"
        raise EventRefused("invalid_field", message)
    try:
        validate_event(event)
    except BadEvent as error:
        raise EventRefused(error.reason, error.detail) from None
    return event
