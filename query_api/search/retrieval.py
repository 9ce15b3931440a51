"""From embeddings to an answer, on one searcher: the rank, rate and write steps. Blocking: for a worker.

Each kind of search has its function: one query, the queries of several requests, a batch, a page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from query_api.answers.headlines import JsonObject
from query_api.answers.unknown_fields import fields_of, unknown_fields
from query_api.search.paging.cursors import write_cursor
from query_api.search.paging.pages import Page, build_page_requests, next_page
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import Rankings, find_rankings, rank
from query_api.search.ranking.rating import RatedHits, rate
from query_api.search.request.options import RatedOptions
from query_api.search.results import write_answer, write_results
from query_api.serving.engine import Snapshot
from query_api.telemetry.stages import Stages

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SharedSearch:
    """One request's search among several that are made in one call."""

    query: QueryEmbedding
    options: RatedOptions
    stages: Stages


def search(searcher: Snapshot, query: QueryEmbedding, options: RatedOptions, stages: Stages) -> bytes:
    """Answer one query, as JSON."""
    with stages.measure("search"):
        [rankings] = rank(searcher.observed_by(stages.search_observer), [(query, options)])
    return _rate_and_write(searcher, rankings, query=query, options=options, stages=stages)


def _rate_and_write(
    searcher: Snapshot, rankings: Rankings, *, query: QueryEmbedding, options: RatedOptions, stages: Stages
) -> bytes:
    with stages.measure("columns"):
        answer = _write_found(searcher, rate(query, rankings, options), options)
    return write_answer(answer, searcher, stages)


def _write_found(searcher: Snapshot, rated: RatedHits, options: RatedOptions) -> JsonObject:
    """Write the results; if nothing is found, also which fields of the filter no content has."""
    answer: JsonObject = {"results": write_results(searcher, rated, options.include)}
    if not any(rated.values()) and (unknown := unknown_fields(searcher, fields_of(options.filter))):
        answer["unknown_fields"] = unknown
    return answer


def search_each(searcher: Snapshot, searches: Sequence[SharedSearch]) -> list[bytes | Exception]:
    """Answer the requests of several clients, each as JSON or with the error that it fails with.

    If the common search fails, each search is made alone, so that one request cannot fail the others.
    """
    if len(searches) > 1:
        try:
            return [*_search_together(searcher, searches)]
        except Exception:
            log.exception("shared search failed", searches=len(searches))
    return [_search_alone(searcher, one) for one in searches]


def _search_together(searcher: Snapshot, searches: Sequence[SharedSearch]) -> list[bytes]:
    began = [one.stages.begin("search") for one in searches]
    found = rank(searcher, [(one.query, one.options) for one in searches])
    for one, moment in zip(searches, began, strict=True):
        one.stages.add("search", moment, one.stages.now())
    return [
        _rate_and_write(searcher, rankings, query=one.query, options=one.options, stages=one.stages)
        for one, rankings in zip(searches, found, strict=True)
    ]


def _search_alone(searcher: Snapshot, one: SharedSearch) -> bytes | Exception:
    try:
        return search(searcher, one.query, one.options, one.stages)
    except Exception as error:  # noqa: BLE001 (any error is raised again in the request that asked)
        return error


def search_batch(
    searcher: Snapshot, queries: Sequence[tuple[QueryEmbedding, RatedOptions]], stages: Stages
) -> bytes:
    """Answer the queries of one request, in order, as JSON."""
    with stages.measure("search"):
        found = rank(searcher.observed_by(stages.search_observer), queries)
    with stages.measure("columns"):
        answers = [
            _write_found(searcher, rate(query, rankings, options), options)
            for (query, options), rankings in zip(queries, found, strict=True)
        ]
    return write_answer({"answers": answers}, searcher, stages)


def search_page(
    searcher: Snapshot, newest: Snapshot, page: Page, *, cursor_key: bytes, stages: Stages
) -> bytes:
    """Answer a page, as JSON. `searcher` is the one that the first page was found in.

    Contents that are no longer live in the newest searcher are left out. The snapshot of
    the answer is the first page's.
    """
    with stages.measure("search"):
        observed = searcher.observed_by(stages.search_observer)
        requests = build_page_requests(page)
        found = find_rankings(observed, requests, None if newest is searcher else newest)
        rankings = {one.modality: ranking for one, ranking in zip(requests, found, strict=True)}
    with stages.measure("columns"):
        rated = rate(page.query, rankings, page.options)
        answer = _write_found(searcher, rated, page.options)
    following = next_page(page, rankings)
    cursor = write_cursor(following, cursor_key) if following else None
    return write_answer({**answer, "next_cursor": cursor}, searcher, stages)
