"""Live queries that query services have kept: read from them, and made ready to be asked of two indexes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from cliptide.pairs.reading import BadInput
from cliptide.reindexing.compared_query import ComparedQuery, ComparedTerm
from cliptide.searching.query_client import QueryClient, QueryServiceError
from cliptide.terminal.options import http_address, option
from cliptide.terminal.waiting import tell
from query_api.search.request.models import Query

MAX_TITLE = 120


class _SampledQuery(BaseModel):
    query: Query
    weight: int


class _Sample(BaseModel):
    max_queries: int
    queries: list[_SampledQuery]
    not_kept: dict[str, int]


@dataclass(frozen=True, slots=True)
class LiveQueries:
    """Where samples of live queries are: the addresses of query services, and a key that may read them."""

    urls: Sequence[str] = ()
    admin_key: str | None = None

    def read(self) -> list[ComparedQuery]:
        """Read the sample of each service. Equal queries become one, which weighs as much as all of them.

        Raises `QueryServiceError`, and `BadInput` if a service keeps no queries.
        """
        weights: Counter[str] = Counter()
        for url in self.urls:
            sample = _read_sample(QueryClient(url, self.admin_key))
            for one in sample.queries:
                body = one.query.model_dump(mode="json", exclude_defaults=True)
                weights[json.dumps(body, sort_keys=True)] += one.weight
        return [_compared(Query.model_validate_json(body), weight) for body, weight in weights.items()]


def _read_sample(client: QueryClient) -> _Sample:
    try:
        sample = _Sample.model_validate(client.query_sample())
    except ValidationError as error:
        raise QueryServiceError(f"{client.url} answers no sample of live queries") from error
    if not sample.max_queries:
        raise BadInput(
            f"the query service at {client.url} keeps no live queries: set "
            "CLIPTIDE_QUERY_API__QUERY_SAMPLE_SIZE there, and wait until people have searched"
        )
    not_kept = ", ".join(f"{reason} {number:,}" for reason, number in sample.not_kept.items())
    tell(
        f"{client.url}: {len(sample.queries):,} live queries, which stand for "
        f"{sum(one.weight for one in sample.queries):,}" + (f" (not kept: {not_kept})" if not_kept else "")
    )
    return sample


def _compared(query: Query, weight: int) -> ComparedQuery:
    terms: Any = query.terms or [query]
    return ComparedQuery(
        _title_of(query),
        tuple(ComparedTerm(one.text, one.content_id, getattr(one, "weight", 1.0)) for one in terms),
        kind="live",
        modality=query.modality,
        row_filter=query.filter.as_row_filter() if query.filter else None,
        weight=weight,
    )


def _title_of(query: Query) -> str:
    parts = (f"{one.weight:+g} {one.text or one.content_id}" for one in query.terms or ())
    title = query.text or query.content_id or " ".join(parts)
    return (title + (" (filtered)" if query.filter else ""))[:MAX_TITLE]


def live_options(command: Any) -> Any:
    """Add --live and --admin-key."""
    command = option(
        "--admin-key",
        default=None,
        envvar="CLIPTIDE_ADMIN_KEY",
        help="The key that is sent to each --live, of CLIPTIDE_QUERY_API__ADMIN_KEYS.",
    )(command)
    return option(
        "--live",
        "live_urls",
        multiple=True,
        callback=lambda ctx, param, values: [http_address(ctx, param, one) for one in values],
        help="The address of a query service whose sample of live queries is asked too. Repeatable.",
    )(command)
