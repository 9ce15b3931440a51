"""Which rankings a query asks for: one of each modality, with its filter, its bounds and its page."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from clip_index.content import MODALITIES, Modality
from clip_index.row_filter import AnyOf, RowFilter
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.request.options import RankingOptions, RatedOptions
from query_api.serving.engine import Hit

MAX_DEPTH = 10_000
"""The deepest rank a page may reach. Serving a page ranks everything before it again, so depth costs."""


@dataclass(frozen=True, slots=True)
class PageEnd:
    """The last hit of a page. `num_before` counts the hits of the ranking up to it, itself included.

    In the generations of the first page the next one begins at that rank, not behind that score: far down, a
    ranking goes on with hits that the first lists did not hold, and these may score higher. An engine that
    has no former generations ranks what is there now. Ranks have moved there, so the page begins behind that
    score.
    """

    score: float
    content_id: str
    num_before: int


@dataclass(frozen=True, slots=True)
class RankingRequest:
    """One ranking of one modality: best score first, equal scores by content id.

    `after` is the end of the page before, None for the first page; where ranks are not stable, contents have
    come and gone since. All pages of a ranking are found with
    the same `depth`; it is None for a ranking without pages.
    """

    query: QueryEmbedding
    modality: Modality
    k: int
    min_score: float | None = None
    row_filter: RowFilter | None = None
    is_collapsing: bool = False
    after: PageEnd | None = None
    are_ranks_stable: bool = True
    depth: int | None = None

    def is_on_former_page(self, rank_of_hit: int, hit: Hit) -> bool:
        """Whether a hit of this rank was on the pages before, or stands where they were."""
        if self.after is None:
            return False
        if self.are_ranks_stable:
            return rank_of_hit < self.after.num_before
        behind = (-self.after.score, self.after.content_id)
        return (-hit.score, hit.content_id) <= behind or hit.content_id == self.after.content_id

    @property
    def num_first_searched(self) -> int:
        """How many hits to search for at first: enough unless some of them are left out."""
        return self.k + len(self.query.excluded_ids) + (self.after.num_before if self.after else 0)

    @property
    def takes_every_hit(self) -> bool:
        """Whether every hit of the searcher may be answered."""
        return (
            not (self.query.excluded_ids or self.is_collapsing)
            and self.min_score is None
            and self.after is None
        )


def build_ranking_requests(query: QueryEmbedding, options: RankingOptions) -> list[RankingRequest]:
    """Ask for one ranking of each modality that is to be answered."""
    return [
        RankingRequest(
            query,
            modality,
            options.k,
            min_score=options.min_score,
            row_filter=options.filter.as_row_filter() if options.filter else None,
            is_collapsing=options.collapse_identical,
        )
        for modality in modalities_of(options)
    ]


def build_rated_requests(query: QueryEmbedding, options: RatedOptions) -> list[RankingRequest]:
    """Ask for the same rankings, down to the least percentile if the options name one."""
    requests = build_ranking_requests(query, options)
    if options.min_percentile is None:
        return requests
    return [at_least_percentile(request, options.min_percentile) for request in requests]


def at_least_percentile(request: RankingRequest, min_percentile: float) -> RankingRequest:
    """Ask only for hits of a least percentile. Without a scale no hit has a percentile, so none passes."""
    scale = request.query.scales.get(request.modality)
    least = math.inf if scale is None else scale.least_score(request.query.embedding, min_percentile)
    return replace(request, min_score=least if request.min_score is None else max(least, request.min_score))


def modalities_of(options: RankingOptions) -> tuple[Modality, ...]:
    return (options.modality,) if options.modality else MODALITIES


def without_owner(row_filter: RowFilter | None, owner_id: str | None) -> RowFilter | None:
    """Add to a filter that it leaves out what an owner uploaded; without an owner it stays as it is."""
    if owner_id is None:
        return row_filter
    wanted = row_filter or RowFilter()
    return replace(wanted, must_not=(*wanted.must_not, AnyOf("owner_id", (owner_id,))))
