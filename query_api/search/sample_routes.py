"""`/v1/query_sample`: the searches that the service keeps, for whoever has an admin key."""

from __future__ import annotations

from typing import Any

from aiohttp import web
from pydantic import Field

from query_api.contract.models import Answer
from query_api.contract.route import Route
from query_api.http.json_answer import json_answer
from query_api.search.query_sample import QUERY_SAMPLE


class SampledQuery(Answer):
    query: dict[str, Any] = Field(description="The query, as a body of `/v1/search`.")
    weight: int = Field(description="How many queries of its time it stands for.")
    asked_at: float = Field(description="When it was asked, in seconds since 1970.")


class QuerySampleAnswer(Answer):
    """A sample of the queries of this process."""

    max_queries: int = Field(description="How many queries are kept at most. 0: none, which is the default.")
    hours: float = Field(description="For how many hours a query is kept.")
    queries: list[SampledQuery] = Field(description="The oldest comes first.")
    not_kept: dict[str, int] = Field(
        description="How many queries were drawn since the start, and not kept, because they hold a picture "
        "(`image`) or numbers (`vector`), or are too `large`."
    )


async def get_query_sample(request: web.Request) -> web.Response:
    """Answer the queries that are kept. They are those of this process, if several share a port."""
    sample = request.app[QUERY_SAMPLE]
    answer = QuerySampleAnswer(
        max_queries=sample.settings.max_queries,
        hours=sample.settings.hours,
        queries=[
            SampledQuery(query=one.body, weight=one.weight, asked_at=one.asked_at) for one in sample.queries()
        ],
        not_kept={str(reason): number for reason, number in sample.not_kept.items()},
    )
    return json_answer(answer.model_dump_json())


ROUTES = (
    Route(
        method="GET",
        path="/v1/query_sample",
        handler=get_query_sample,
        access="admin",
        name="get_query_sample",
        summary="The sample of live queries that the service keeps. It needs an admin key.",
        answers={200: QuerySampleAnswer},
    ),
)
