"""`/v1/facets`: which values the contents have that match a query and a filter.

A request reads at most 1,000 contents of each modality: the best hits of the query, or the newest
contents. So it costs about two searches for 1,000 hits, however large the index is.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from aiohttp import web

from clip_index.content import MODALITIES, StoredContent
from query_api.answers.snapshot import build_snapshot
from query_api.answers.unknown_fields import fields_of, unknown_fields
from query_api.contents.facet_models import (
    MAX_COUNTED,
    Facet,
    FacetAnswer,
    FacetRequest,
    FacetValueCount,
)
from query_api.contents.facets import count_facets
from query_api.contract.error_codes import RATING, REFUSED_IMAGE, REFUSED_TEXT, SEARCHING
from query_api.contract.route import JSON, Examples, Route
from query_api.http.bodies.reading import read_json_body
from query_api.http.guards.rate_limit import charge
from query_api.http.json_answer import json_answer
from query_api.search.query_resolution import QueryResolver, with_scales
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import rank
from query_api.search.request.tokens import cost_of_examples, cost_of_options
from query_api.serving.engine import CountedField, Location, Snapshot
from query_api.serving.workers import WORKERS
from query_api.swap.served_pair import SERVED
from query_api.telemetry.stages import STAGES, Stages

_WHOLLY_COUNTED: tuple[CountedField, ...] = ("modality", "source", "owner_id")


async def facets(request: web.Request) -> web.Response:
    """Answer how often the values of fields occur among what matches."""
    stages = request[STAGES]
    with stages.measure("read"):
        wanted = await read_json_body(request, FacetRequest)
        query = wanted.as_query()
        charge(request, cost_of_examples([query, *(query.terms or ())]) + cost_of_options(query))
    searcher = request[SERVED].index.searcher
    embedding: QueryEmbedding | None = None
    if wanted.has_query:
        with stages.measure("encode"):
            resolver = QueryResolver(searcher, request[SERVED].encoder, request.app[WORKERS])
            embedding = await resolver.embed(query)
        embedding = with_scales(embedding, query, request[SERVED].scales)
    text = await request.app[WORKERS].run(build_facet_answer, searcher, wanted, embedding, stages)
    return json_answer(text)


def build_facet_answer(
    searcher: Snapshot, wanted: FacetRequest, query: QueryEmbedding | None, stages: Stages
) -> str:
    """Find what matches, count its values, and return the answer as JSON. Blocking."""
    with stages.measure("search"):
        found = _newest(searcher, wanted) if query is None else _best(searcher, wanted, query)
        is_complete = all(len(locations) <= MAX_COUNTED for locations in found)
    with stages.measure("columns"):
        contents: list[StoredContent] = [
            content
            for locations in found
            for content in searcher.read_many(locations[:MAX_COUNTED], ["metadata"])
        ]
        fields = count_facets(contents, wanted.fields, wanted.max_values)
        if query is None and not is_complete:
            fields |= _whole_counts(searcher, wanted)
        named = [*(wanted.fields or ()), *fields_of(wanted.filter)]
        unknown = unknown_fields(searcher, (field for field in dict.fromkeys(named) if field not in fields))
    answer = FacetAnswer(
        fields=fields,
        unknown_fields=unknown or None,
        num_counted=len(contents),
        is_complete=is_complete,
        snapshot=build_snapshot(searcher),
        timings=stages.as_milliseconds(),
    )
    return answer.model_dump_json(exclude_none=True)


def _best(searcher: Snapshot, wanted: FacetRequest, query: QueryEmbedding) -> list[Sequence[Location]]:
    """Return the best hits of each modality, and one more than are counted."""
    [rankings] = rank(searcher, [(query, wanted.as_query())])
    return [[hit.location for hit in ranking.hits] for ranking in rankings.values()]


def _newest(searcher: Snapshot, wanted: FacetRequest) -> list[Sequence[Location]]:
    """Return the newest contents of each modality, and one more than are counted."""
    row_filter = wanted.filter.as_row_filter() if wanted.filter else None
    modalities = (wanted.modality,) if wanted.modality else MODALITIES
    return [
        [one.location for one in searcher.newest(k=MAX_COUNTED + 1, modality=modality, row_filter=row_filter)]
        for modality in modalities
    ]


def _whole_counts(searcher: Snapshot, wanted: FacetRequest) -> dict[str, Facet]:
    """Count the fields whose counts an index keeps, over all contents and not only the newest."""
    if wanted.modality is not None:
        return {}  # those counts are kept for all modalities together
    row_filter = wanted.filter.as_row_filter() if wanted.filter else None
    counted = {
        field: searcher.count_values(field, row_filter, max_values=wanted.max_values)
        for field in _WHOLLY_COUNTED
        if wanted.fields is None or field in wanted.fields
    }
    return {
        field: Facet(
            values=[FacetValueCount(value=value, count=number) for value, number in counts.values],
            num_values=counts.num_values,
        )
        for field, counts in counted.items()
    }


FACETS: Examples = MappingProxyType(
    {
        "of all contents": {"max_values": 10},
        "of what matches a text": {"text": "a red dress", "min_percentile": 0.9, "max_values": 10},
        "of one field": {"fields": ["metadata.colour"], "modality": "image"},
    }
)

ROUTES = (
    Route(
        method="POST",
        path="/v1/facets",
        handler=facets,
        access="read",
        summary="Which values contents have that match a query and a filter, with counts.",
        answers={200: FacetAnswer},
        bodies={JSON: FacetRequest},
        examples=FACETS,
        codes=SEARCHING | REFUSED_TEXT | REFUSED_IMAGE | RATING | {"no_index", "unknown_content"},
    ),
)
