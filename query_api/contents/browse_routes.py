"""`/v1/browse` and `/v1/counts`: looking at an index without a query."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from aiohttp import web

from clip_index.content import MODALITIES, Modality
from clip_index.reading.browsing import NewestContent, TimePosition
from clip_index.reading.searcher import Searcher
from clip_index.reading.value_counts import ValueCounts
from query_api.app_keys import SERVED_INDEX, STAGES, WORKERS
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
from query_api.contents.index_models import ContentHeadline
from query_api.contract.models import Include
from query_api.contract.validation import read_json_body
from query_api.search import retrieval
from query_api.telemetry.stages import Stages


async def browse(request: web.Request) -> web.Response:
    """Answer the newest contents."""
    wanted = await read_json_body(request, BrowseRequest)
    searcher = request.app[SERVED_INDEX].searcher
    return await _answer(request, lambda: build_browse_answer(searcher, wanted, request[STAGES]))


async def count(request: web.Request) -> web.Response:
    """Answer how often the values of some fields occur."""
    wanted = await read_json_body(request, CountRequest)
    searcher = request.app[SERVED_INDEX].searcher
    return await _answer(request, lambda: build_count_answer(searcher, wanted, request[STAGES]))


def build_browse_answer(searcher: Searcher, wanted: BrowseRequest, stages: Stages) -> str:
    """Find the newest contents, read what is shown of them, return the answer as JSON. Blocking."""
    row_filter = wanted.filter.as_row_filter() if wanted.filter else None
    positions = _positions_of(wanted)
    with stages.measure("columns"):
        found = {
            modality: searcher.newest(k=wanted.k, modality=modality, row_filter=row_filter, after=after)
            for modality, after in positions.items()
        }
        results = {
            modality: NewestContents(hits=_headlines(searcher, newest, wanted.include))
            for modality, newest in found.items()
        }
    ends = {modality: newest[-1].position for modality, newest in found.items() if len(newest) == wanted.k}
    answer = BrowseAnswer(
        results=results,
        next_cursor=write_browse_cursor(ends) if ends else None,
        snapshot=retrieval.build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return answer.model_dump_json(exclude_unset=True)


def _positions_of(wanted: BrowseRequest) -> Mapping[Modality, TimePosition | None]:
    """Return the modalities to answer, and the position after which each goes on; None at its start."""
    if wanted.cursor is not None:
        return read_browse_cursor(wanted.cursor)
    return dict.fromkeys((wanted.modality,) if wanted.modality else MODALITIES)


def _headlines(
    searcher: Searcher, newest: Sequence[NewestContent], include: Collection[Include]
) -> list[ContentHeadline]:
    locations = [content.location for content in newest]
    return [ContentHeadline(**line) for line in retrieval.read_headlines(searcher, locations, include)]


def build_count_answer(searcher: Searcher, wanted: CountRequest, stages: Stages) -> str:
    """Count values and return the answer as JSON. Blocking."""
    row_filter = wanted.filter.as_row_filter() if wanted.filter else None
    with stages.measure("columns"):
        fields = {
            field: _field_counts(searcher.count_values(field, row_filter, max_values=wanted.max_values))
            for field in wanted.fields
        }
    answer = CountAnswer(
        fields=fields,
        snapshot=retrieval.build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return answer.model_dump_json()


def _field_counts(counted: ValueCounts) -> FieldCounts:
    values = [ValueCount(value=value, count=number) for value, number in counted.values]
    return FieldCounts(values=values, num_values=counted.num_values)


async def _answer(request: web.Request, build: Callable[[], str]) -> web.Response:
    text = await request.app[WORKERS].run(build)
    return web.Response(text=text, content_type="application/json")
