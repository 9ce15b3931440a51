"""`POST /v1/contents/batch` and `POST /v1/contents/delete`: many contents at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aiohttp import web

from event_log.records import Delivery
from query_api.answers.snapshot import build_snapshot
from query_api.contract.error_codes import SEARCHING
from query_api.contract.route import JSON, Examples, Route
from query_api.contract.validation import model_from_values
from query_api.errors import ApiError, NoIndex, NotYetCovered
from query_api.http.bodies.reading import parse_body, read_json_body, read_parameters
from query_api.http.guards.access import CALLER
from query_api.http.guards.rate_limit import charge
from query_api.http.json_answer import json_answer
from query_api.serving.coverage import covered_searcher
from query_api.serving.engine import Snapshot
from query_api.serving.request_slots import REQUEST_SLOTS
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES
from query_api.telemetry.tracing import TRACE
from query_api.uploads.bulk import (
    ACCEPTED,
    SEARCHABLE,
    Found,
    Written,
    find_deletes,
    min_offsets_of,
    outcomes_of,
    with_fates,
)
from query_api.uploads.bulk_models import (
    NUM_SHOWN_IDS,
    BulkDeleteAnswer,
    BulkDeleteRequest,
    UncheckedUploads,
    UploadBatchAnswer,
    UploadBatchRequest,
)
from query_api.uploads.models import UploadRequest, WriteParameters
from query_api.uploads.publishing import EVENT_PUBLISHER, check_content
from query_api.uploads.reading import build_event
from query_api.uploads.routes import UPLOAD_EXAMPLES
from schemas.events import DeleteEvent, Event

NUM_PUBLISHED_TOGETHER = 256
NOT_IN_TIME = "published, but not searchable in time; it is not lost: ask again with min_offsets"


async def upload_batch(request: web.Request) -> web.Response:
    """Write each upload that is good, and say of each what became of it."""
    request.app[EVENT_PUBLISHER].require_publisher()
    stages = request[STAGES]
    with stages.measure("read"):
        parameters = read_parameters(request, WriteParameters)
        wanted = (await read_json_body(request, UncheckedUploads)).contents
        charge(request, len(wanted) - 1.0)
    with stages.measure("prepare"):
        read = list(await asyncio.gather(*(_read_one(request, one) for one in wanted)))
    with stages.measure("publish"):
        written = await _publish_good(request, read)
    if parameters.wait is not None:
        with stages.measure("wait"):
            written = await _wait_for_all(request, written, parameters.timeout_ms / 1000)
    answer = UploadBatchAnswer(
        outcomes=outcomes_of(written, ACCEPTED if parameters.wait is None else SEARCHABLE),
        num_failed=sum(one.error is not None for one in written),
        min_offsets=min_offsets_of(_deliveries_of(written)),
        timings=stages.as_milliseconds(),
    )
    return json_answer(answer.model_dump_json(exclude_unset=True))


async def _read_one(request: web.Request, values: Any) -> Written:
    """Check one upload as a request of its own would be."""
    try:
        event = await parse_body(request, _num_characters(values), lambda: _event_from_values(values))
        await check_content(request[SERVED].encoder, event)
    except ApiError as error:
        given = values.get("content_id") if isinstance(values, dict) else None
        return Written(None, error=error, content_id=given if isinstance(given, str) else None)
    return Written(event)


def _num_characters(values: Any) -> int:
    """Return how long an upload's content is, whatever the client has sent."""
    content = values.get("content") if isinstance(values, dict) else None
    parts = content.values() if isinstance(content, dict) else ()
    return sum(len(part) for part in parts if isinstance(part, str))


def _event_from_values(values: Any) -> Event:
    return build_event(model_from_values(UploadRequest, values))


async def _publish_good(request: web.Request, read: Sequence[Written]) -> list[Written]:
    events = [one.event for one in read if one.event is not None]
    results = iter(await request.app[EVENT_PUBLISHER].publish_all(events, request[TRACE]))
    return [one if one.event is None else _written(one.event, next(results)) for one in read]


def _written(event: Event, result: Delivery | ApiError) -> Written:
    return Written(event, error=result) if isinstance(result, ApiError) else Written(event, result)


async def _wait_for_all(
    request: web.Request, written: Sequence[Written], timeout_seconds: float
) -> list[Written]:
    """Wait until one snapshot covers all events, and say what became of each."""
    try:
        searcher = await _covering(request, min_offsets_of(_deliveries_of(written)), timeout_seconds)
    except ApiError as error:
        return [one if one.delivery is None else Written(one.event, one.delivery, error) for one in written]
    return await request.app[WORKERS].run(with_fates, searcher, written)


async def _covering(request: web.Request, min_offsets: Mapping[str, int], timeout_seconds: float) -> Snapshot:
    """Wait for a snapshot of these offsets; `ApiError` (not_searchable_in_time)."""
    served, slots = request[SERVED].index, request.app[REQUEST_SLOTS].of(request[CALLER])
    try:
        return await covered_searcher(served, slots, min_offsets, timeout_seconds)
    except (NoIndex, NotYetCovered) as error:
        raise ApiError("not_searchable_in_time", NOT_IN_TIME, details=error.details) from error
    except ApiError as error:  # no such shard: the index is of another topic, or has fewer partitions
        raise ApiError("not_searchable_in_time", NOT_IN_TIME) from error


def _deliveries_of(written: Sequence[Written]) -> list[Delivery]:
    return [one.delivery for one in written if one.delivery is not None]


async def delete_by_filter(request: web.Request) -> web.Response:
    """Delete what passes a filter in the newest snapshot; a dry run only says what passes."""
    request.app[EVENT_PUBLISHER].require_publisher()
    with request[STAGES].measure("read"):
        parameters = read_parameters(request, WriteParameters)
        wanted = await read_json_body(request, BulkDeleteRequest)
    searcher, found = await _find(request, wanted)
    deliveries = [] if wanted.dry_run else await _delete_found(request, found, wanted.max_contents)
    if parameters.wait is not None and deliveries:
        with request[STAGES].measure("wait"):
            offsets = min_offsets_of(deliveries)
            searcher = await _covering(request, offsets, parameters.timeout_ms / 1000)
    answer = BulkDeleteAnswer(
        dry_run=wanted.dry_run,
        num_found=found.num_contents,
        num_deleted=len(deliveries),
        content_ids=[event.content_id for event in found.deletes[:NUM_SHOWN_IDS]],
        min_offsets=min_offsets_of(deliveries),
        snapshot=build_snapshot(searcher),
        timings=request[STAGES].as_milliseconds(),
    )
    return json_answer(answer.model_dump_json(exclude_unset=True))


async def _find(request: web.Request, wanted: BulkDeleteRequest) -> tuple[Snapshot, Found]:
    """Reload, so that what any process has shown is found, and look for what passes the filter."""
    app, stages, row_filter = request.app, request[STAGES], wanted.filter.as_row_filter()
    assert row_filter is not None
    with stages.measure("reload"):
        await request[SERVED].index.reload_for_request()
    searcher = request[SERVED].index.searcher
    with stages.measure("columns"):
        return searcher, await app[WORKERS].run(find_deletes, searcher, row_filter, wanted.max_contents)


async def _delete_found(request: web.Request, found: Found, max_contents: int) -> list[Delivery]:
    if found.num_contents > max_contents:
        message = (
            f"{found.num_contents} contents pass the filter, more than max_contents ({max_contents}); "
            "nothing is deleted"
        )
        raise ApiError("too_many_contents", message)
    charge(request, len(found.deletes) / NUM_PUBLISHED_TOGETHER)
    with request[STAGES].measure("publish"):
        return await _publish_deletes(request, found.deletes)


async def _publish_deletes(request: web.Request, deletes: Sequence[DeleteEvent]) -> list[Delivery]:
    """Publish the deletes in parts, and stop at the first part that fails. To ask again is harmless."""
    deliveries: list[Delivery] = []
    for start in range(0, len(deletes), NUM_PUBLISHED_TOGETHER):
        part = deletes[start : start + NUM_PUBLISHED_TOGETHER]
        results = await request.app[EVENT_PUBLISHER].publish_all(part, request[TRACE])
        deliveries.extend(result for result in results if isinstance(result, Delivery))
        if (error := next((one for one in results if isinstance(one, ApiError)), None)) is not None:
            message = (
                f"{len(deliveries)} of {len(deletes)} deletes are in the log, ask again: {error.message}"
            )
            raise ApiError(error.code, message, headers=error.headers)
    return deliveries


BATCHES: Examples = MappingProxyType(
    {
        "a text and a delete": {
            "contents": [*UPLOAD_EXAMPLES.values(), {"content_id": "shoe-2", "operation": "delete"}]
        }
    }
)
DELETES: Examples = MappingProxyType(
    {
        "dry run: what would be deleted?": {
            "filter": {"must": [{"field": "source", "equals": "shop"}, {"field": "metadata.price", "lt": 20}]}
        },
        "delete all of an owner": {
            "filter": {"must": [{"field": "owner_id", "equals": "owner-9"}]},
            "dry_run": False,
        },
    }
)

ROUTES = (
    Route(
        method="POST",
        path="/v1/contents/batch",
        handler=upload_batch,
        access="write",
        summary="Up to 64 uploads and deletes at once, each with an outcome of its own.",
        description="A wrong upload does not refuse the others: see `num_failed` and the `error` of each "
        "outcome. With `wait=searchable` the answer comes when searches see all of them.",
        answers={200: UploadBatchAnswer},
        parameters=WriteParameters,
        bodies={JSON: UploadBatchRequest},
        examples=BATCHES,
        codes=frozenset({"publishing_off"}),
    ),
    Route(
        method="POST",
        path="/v1/contents/delete",
        handler=delete_by_filter,
        access="write",
        summary="Delete every content that passes a filter. By default a dry run.",
        description="The deletes go through the log. A content that has a version is deleted at that "
        "version, so a newer version that is uploaded meanwhile stays.",
        answers={200: BulkDeleteAnswer},
        parameters=WriteParameters,
        bodies={JSON: BulkDeleteRequest},
        examples=DELETES,
        codes=SEARCHING
        | {"publishing_off", "too_many_contents", "log_unavailable", "not_searchable_in_time"},
    ),
)
