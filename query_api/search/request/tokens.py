"""What a request costs, in tokens of the rate limit. A plain search of a short text costs one."""

from __future__ import annotations

from collections.abc import Iterable

from query_api.search.request.models import Example, Query, SearchRequest
from query_api.search.request.options import RankingOptions
from query_api.search.request.request_costs import count_conditions, count_windows

WINDOWS_OF_A_TOKEN = 14  # those of an English text of 2,000 characters
CONDITIONS_OF_A_TOKEN = 8
HITS_OF_A_TOKEN = 200


def surplus_of_search(wanted: SearchRequest) -> float:
    """Return what a search costs beyond the one token that every request costs."""
    return surplus_of_queries(wanted.queries or [wanted])


def surplus_of_queries(queries: Iterable[Query]) -> float:
    """Return the same of queries that are searched together."""
    return sum(map(_cost_of_query, queries)) - 1.0


def cost_of_examples(examples: Iterable[Example]) -> float:
    """Return what embedding costs. A picture or a text of 2,000 characters is about a search."""
    return sum(map(_cost_of_example, examples))


def cost_of_options(options: RankingOptions) -> float:
    """Return what the filter and the number of hits cost."""
    return count_conditions(options.filter) // CONDITIONS_OF_A_TOKEN + options.k // HITS_OF_A_TOKEN


def _cost_of_query(query: Query) -> float:
    return 1.0 + cost_of_examples([query, *(query.terms or ())]) + cost_of_options(query)


def _cost_of_example(example: Example) -> float:
    if example.image is not None:
        return 1.0
    return count_windows(example.text or "") // WINDOWS_OF_A_TOKEN
