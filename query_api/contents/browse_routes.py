"""`/v1/browse` and `/v1/counts`, which show an index without a query."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from aiohttp import web

from clip_index.content import MODALITIES, Modality
from query_api.answers.headlines import ContentHeadline, read_headlines
from query_api.answers.snapshot import build_snapshot
from query_api.answers.unknown_fields import fields_of, unknown_fields
from query_api.contents.browse_cursors import read_browse_cursor, write_browse_cursor
from query_api.contents.browse_models import (
    BrowseAnswer,
    BrowseRequest,
    CountAnswer,
    CountRequest,
    FieldCounts,
    NewestContents,
    ValueCount,
)
from query_api.contract.models import Include
from query_api.contract.route import JSON, Examples, Route
from query_api.http.bodies.reading import read_json_body
from query_api.http.json_answer import json_answer
from query_api.serving.engine import NewestContent, Snapshot, TimePosition, ValueCounts
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES, Stages


async def browse(request: web.Request) -> web.Response:
    """Answer the newest contents."""
    wanted = await read_json_body(request, BrowseRequest)
    searcher = request[SERVED].index.searcher
    return json_answer(await request.app[WORKERS].run(build_browse_answer, searcher, wanted, request[STAGES]))


async def count(request: web.Request) -> web.Response:
    """Answer how often the values of some fields occur."""
    wanted = await read_json_body(request, CountRequest)
    searcher = request[SERVED].index.searcher
    return json_answer(await request.app[WORKERS].run(build_count_answer, searcher, wanted, request[STAGES]))


def build_browse_answer(searcher: Snapshot, wanted: BrowseRequest, stages: Stages) -> str:
    """Find the newest contents, read their fields, and return the answer as JSON. Blocking."""
    row_filter = wanted.filter.as_row_filter() if wanted.filter else None
    starts = _starts_of(wanted)
    with stages.measure("columns"):
        found = {
            modality: searcher.newest(k=wanted.k, modality=modality, row_filter=row_filter, after=after)
            for modality, after in starts.items()
        }
        results = {
            modality: NewestContents(hits=_headlines(searcher, newest, wanted.include))
            for modality, newest in found.items()
        }
    ends = {modality: newest[-1].position for modality, newest in found.items() if len(newest) == wanted.k}
    unknown = [] if any(found.values()) else unknown_fields(searcher, fields_of(wanted.filter))
    answer = BrowseAnswer(
        results=results,
        **({"unknown_fields": unknown} if unknown else {}),
        next_cursor=write_browse_cursor(ends) if ends else None,
        snapshot=build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return answer.model_dump_json(exclude_unset=True)


def _starts_of(wanted: BrowseRequest) -> Mapping[Modality, TimePosition | None]:
    """Return the modalities to answer, each with the position to go on after; None begins at the newest."""
    if wanted.cursor is not None:
        return read_browse_cursor(wanted.cursor)
    return dict.fromkeys((wanted.modality,) if wanted.modality else MODALITIES)


def _headlines(
    searcher: Snapshot, newest: Sequence[NewestContent], include: Collection[Include]
) -> list[ContentHeadline]:
    locations = [content.location for content in newest]
    return [ContentHeadline(**line) for line in read_headlines(searcher, locations, include)]


def build_count_answer(searcher: Snapshot, wanted: CountRequest, stages: Stages) -> str:
    """Count values and return the answer as JSON. Blocking."""
    row_filter = wanted.filter.as_row_filter() if wanted.filter else None
    with stages.measure("columns"):
        fields = {
            field: _field_counts(searcher.count_values(field, row_filter, max_values=wanted.max_values))
            for field in wanted.fields
        }
    answer = CountAnswer(
        fields=fields,
        snapshot=build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return answer.model_dump_json()


def _field_counts(counted: ValueCounts) -> FieldCounts:
    values = [ValueCount(value=value, count=number) for value, number in counted.values]
    return FieldCounts(values=values, num_values=counted.num_values)


BROWSINGS: Examples = {
    "the newest pictures": {"k": 10, "modality": "image", "include": ["metadata", "thumbnail_url"]},
    "the newest of an owner": {"filter": {"must": [{"field": "owner_id", "equals": "seller-02"}]}},
}
COUNTINGS: Examples = {
    "all contents": {"fields": ["modality", "source", "owner_id"]},
    "the owners of pictures": {
        "fields": ["owner_id"],
        "filter": {"must": [{"field": "modality", "equals": "image"}]},
    },
}

ROUTES = (
    Route(
        method="POST",
        path="/v1/browse",
        handler=browse,
        access="read",
        summary="The newest contents.",
        answers={200: BrowseAnswer},
        bodies={JSON: BrowseRequest},
        examples=BROWSINGS,
        codes=frozenset({"bad_cursor", "no_index"}),
    ),
    Route(
        method="POST",
        path="/v1/counts",
        handler=count,
        access="read",
        summary="How many contents each modality, source and owner has.",
        answers={200: CountAnswer},
        bodies={JSON: CountRequest},
        examples=COUNTINGS,
        codes=frozenset({"no_index"}),
    ),
)
