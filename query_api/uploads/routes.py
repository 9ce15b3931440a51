"""`POST /v1/contents` and `DELETE /v1/contents/{content_id}`: events into the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aiohttp import web

from clip_index.reading.searcher import Searcher
from event_log.records import Delivery
from query_api.answers.snapshot import build_snapshot
from query_api.contract.error_codes import REFUSED_IMAGE, REFUSED_TEXT, WRITING
from query_api.contract.route import BINARY, FORM, JSON, Described, Examples, Route
from query_api.contract.schema_rules import NOT_BLANK
from query_api.encoding.query_encoder import QUERY_ENCODER
from query_api.errors import ApiError, ErrorDetail, NoIndex, NotYetCovered
from query_api.http.json_answer import json_answer
from query_api.serving.coverage import covered_searcher
from query_api.serving.workers import WORKERS
from query_api.telemetry.stages import STAGES
from query_api.uploads.models import (
    DeleteParameters,
    PublishedAnswer,
    RawUploadParameters,
    SearchableAnswer,
    UploadMultipart,
    UploadRequest,
    WriteParameters,
)
from query_api.uploads.publishing import UPLOADS, Fate, fate_of, shard_of
from query_api.uploads.reading import IMAGE_TYPES, read_delete, read_upload
from schemas.events import DeleteEvent, Event, ImageContent, TextContent

MESSAGES: dict[Fate, str] = {
    "superseded": "a later event or a greater version of this content has won",
    "set_aside": "the content is not in the index: its event was set aside, or deleted right after",
}


async def post_content(request: web.Request) -> web.Response:
    request.app[UPLOADS].require_publisher()
    with request[STAGES].measure("read"):
        event, parameters = await read_upload(request)
    return await _write(request, event, parameters)


async def delete_content(request: web.Request) -> web.Response:
    request.app[UPLOADS].require_publisher()
    event, parameters = read_delete(request)
    return await _write(request, event, parameters)


async def _write(request: web.Request, event: Event, parameters: WriteParameters) -> web.Response:
    delivery = await publish_event(request, event)
    if parameters.wait is None:
        return json_answer(_published(request, event, delivery).model_dump_json(), status=202)
    fate, searcher = await wait_for_fate(request, event, delivery, parameters.timeout_ms / 1000)
    if fate != "applied":
        raise ApiError(fate, MESSAGES[fate], details=[_place(delivery)])
    answer = SearchableAnswer(**dict(_published(request, event, delivery)), snapshot=build_snapshot(searcher))
    return json_answer(answer.model_dump_json())


async def publish_event(request: web.Request, event: Event) -> Delivery:
    """Publish an event whose content can be encoded, or raise `ApiError`."""
    stages = request[STAGES]
    with stages.measure("prepare"):
        await _check_content(request, event)
    with stages.measure("publish"):
        return await request.app[UPLOADS].publish(event)


async def wait_for_fate(
    request: web.Request, event: Event, delivery: Delivery, timeout_seconds: float
) -> tuple[Fate, Searcher]:
    """Wait until a searcher covers the event and say what became of it; `ApiError` (504) with its offset."""
    with request[STAGES].measure("wait"):
        try:
            searcher = await covered_searcher(
                request, {shard_of(delivery): delivery.next_offset}, timeout_seconds
            )
        except (NoIndex, NotYetCovered) as error:
            raise _not_in_time(delivery, error.details) from error
        except ApiError as error:  # an index of another topic or with fewer partitions
            raise _not_in_time(delivery, ()) from error
    return await request.app[WORKERS].run(fate_of, searcher, event, delivery), searcher


async def _check_content(request: web.Request, event: Event) -> None:
    if isinstance(event, DeleteEvent):
        return
    encoder = request.app[QUERY_ENCODER]
    if isinstance(event.content, TextContent):
        await encoder.check(event.content.text)
    elif isinstance(event.content, ImageContent):
        await encoder.check(event.content.data)


def _not_in_time(delivery: Delivery, missing: Sequence[ErrorDetail]) -> ApiError:
    message = "published, but not searchable in time; it is not lost: ask again by its offset"
    detail = _place(delivery)
    for shard in missing:
        detail = {**detail, "required_next_offset": delivery.next_offset, "next_offset": shard["next_offset"]}
    return ApiError("not_searchable_in_time", message, details=[detail])


def _place(delivery: Delivery) -> ErrorDetail:
    return {"shard": shard_of(delivery), "offset": delivery.offset, "next_offset": delivery.next_offset}


def _published(request: web.Request, event: Event, delivery: Delivery) -> PublishedAnswer:
    return PublishedAnswer(
        content_id=event.content_id,
        topic=delivery.topic,
        partition=delivery.partition,
        offset=delivery.offset,
        next_offset=delivery.next_offset,
        shard=shard_of(delivery),
        timings=request[STAGES].as_milliseconds(),
    )


WRITTEN: Mapping[int, Described] = {200: SearchableAnswer, 202: PublishedAnswer}


UPLOAD_EXAMPLES: Examples = MappingProxyType(
    {
        "a text": {
            "content_id": "shoe-1",
            "source": "shop",
            "owner_id": "owner-9",
            "link": "https://shop.example/shoe-1",
            "content": {"text": "a red shoe"},
            "metadata": {"colour": "red", "price": 49.5, "in_stock": True},
        }
    }
)


ROUTES = (
    Route(
        method="POST",
        path="/v1/contents",
        handler=post_content,
        access="write",
        summary="Upload a content.",
        answers=WRITTEN,
        parameters=RawUploadParameters,
        required_parameters=frozenset(),  # JSON and forms carry the content id themselves
        bodies={
            JSON: UploadRequest,
            FORM: UploadMultipart,
            "text/plain": {"type": "string"} | NOT_BLANK,
            **dict.fromkeys(IMAGE_TYPES, BINARY),
        },
        examples=UPLOAD_EXAMPLES,
        codes=WRITING | REFUSED_TEXT | REFUSED_IMAGE | {"bad_multipart"},
    ),
    Route(
        method="DELETE",
        path="/v1/contents/{content_id}",
        handler=delete_content,
        access="write",
        summary="Delete a content.",
        answers=WRITTEN,
        parameters=DeleteParameters,
        codes=WRITING - {"content_too_large"},
    ),
)
