"""`POST /v1/contents`, and `PATCH` and `DELETE /v1/contents/{content_id}`: uploads, patches and deletes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aiohttp import web

from event_log.records import Delivery
from query_api.answers.snapshot import build_snapshot
from query_api.contract.error_codes import REFUSED_IMAGE, REFUSED_TEXT, WRITING
from query_api.contract.route import BINARY, FORM, JSON, MERGE_PATCH, OCTETS, Described, Examples, Route
from query_api.contract.schema_rules import NOT_BLANK
from query_api.errors import ApiError
from query_api.http.guards.access import CALLER
from query_api.http.json_answer import json_answer
from query_api.serving.request_slots import REQUEST_SLOTS
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES, Stages
from query_api.telemetry.tracing import TRACE
from query_api.uploads.fate import MESSAGES, fate_of, position_of, searcher_covering, shard_of
from query_api.uploads.models import (
    DeleteParameters,
    PatchParameters,
    PatchRequest,
    PublishedAnswer,
    RawUploadParameters,
    UploadMultipart,
    UploadRequest,
    WriteParameters,
)
from query_api.uploads.publishing import EVENT_PUBLISHER, publish_event
from query_api.uploads.reading import IMAGE_TYPES, read_delete, read_patch, read_upload
from schemas.events import Event


async def post_content(request: web.Request) -> web.Response:
    request.app[EVENT_PUBLISHER].require_publisher()
    with request[STAGES].measure("read"):
        event, parameters = await read_upload(request)
    return await _write(request, event, parameters)


async def patch_content(request: web.Request) -> web.Response:
    request.app[EVENT_PUBLISHER].require_publisher()
    with request[STAGES].measure("read"):
        event, parameters = await read_patch(request)
    return await _write(request, event, parameters)


async def delete_content(request: web.Request) -> web.Response:
    request.app[EVENT_PUBLISHER].require_publisher()
    event, parameters = read_delete(request)
    return await _write(request, event, parameters)


async def _write(request: web.Request, event: Event, parameters: WriteParameters) -> web.Response:
    """Publish the event; if the client asked for it, wait until the event is searchable."""
    app, stages = request.app, request[STAGES]
    delivery = await publish_event(
        event,
        stages,
        trace=request[TRACE],
        encoder=request[SERVED].encoder,
        publisher=app[EVENT_PUBLISHER],
    )
    if parameters.wait is None:
        return json_answer(
            _published(event, delivery, stages).model_dump_json(exclude_unset=True), status=202
        )
    with stages.measure("wait"):
        searcher = await searcher_covering(
            delivery,
            parameters.timeout_ms / 1000,
            served=request[SERVED].index,
            slots=app[REQUEST_SLOTS].of(request[CALLER]),
        )
    fate = await app[WORKERS].run(fate_of, searcher, event, delivery)
    if fate != "applied":
        raise ApiError(fate, MESSAGES[fate], details=[position_of(delivery)])
    published = _published(event, delivery, stages)
    answer = published.model_copy(update={"snapshot": build_snapshot(searcher)})
    return json_answer(answer.model_dump_json())


def _published(event: Event, delivery: Delivery, stages: Stages) -> PublishedAnswer:
    return PublishedAnswer(
        content_id=event.content_id,
        topic=delivery.topic,
        partition=delivery.partition,
        offset=delivery.offset,
        next_offset=delivery.next_offset,
        shard=shard_of(delivery),
        timings=stages.as_milliseconds(),
    )


WRITTEN: Mapping[int, Described] = {200: PublishedAnswer, 202: PublishedAnswer}

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

PATCH_EXAMPLES: Examples = MappingProxyType(
    {"a lower price": {"metadata": {"price": 39.5, "sale": True, "season": None}}}
)

ROUTES = (
    Route(
        method="POST",
        path="/v1/contents",
        handler=post_content,
        access="write",
        name="upload",
        summary="Upload a content, or a new version of one.",
        description="Also takes a form (`multipart/form-data`): a picture in the part `image` or a text in "
        "the part `text`, and the other fields as parts of their names or together as JSON in a part named "
        "`event`. Also takes a picture or a text (`text/plain`) as the body itself, with the other fields in "
        "the query string. `metadata` is JSON in both.",
        answers=WRITTEN,
        parameters=RawUploadParameters,
        required_parameters=frozenset(),  # JSON and forms carry the content id themselves
        bodies={
            JSON: UploadRequest,
            FORM: UploadMultipart,
            "text/plain": {"type": "string"} | NOT_BLANK,
            **dict.fromkeys((*IMAGE_TYPES, OCTETS), BINARY),
        },
        examples=UPLOAD_EXAMPLES,
        codes=WRITING | REFUSED_TEXT | REFUSED_IMAGE | {"bad_multipart", "unsupported_media_type"},
    ),
    Route(
        method="PATCH",
        path="/v1/contents/{content_id}",
        handler=patch_content,
        access="write",
        name="patch_content",
        summary="Change title, link or metadata of a content, without encoding it again.",
        description="A JSON Merge Patch (RFC 7396): null removes, what is left out stays. It applies to the "
        "content that the id holds at its place in the log. The next upload of the id replaces it whole. "
        "With `wait=searchable` an id without a content is answered with 404.",
        answers=WRITTEN,
        parameters=PatchParameters,
        bodies={JSON: PatchRequest, MERGE_PATCH: PatchRequest},
        examples=PATCH_EXAMPLES,
        codes=WRITING - {"content_too_large"} | {"unknown_content", "unsupported_media_type"},
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
