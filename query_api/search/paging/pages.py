"""Pages of a ranking: where they begin, and how one leads to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from clip_index.content import Modality
from clip_index.errors import DamagedFile, GenerationGone
from query_api.errors import ApiError
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import Rankings
from query_api.search.ranking.ranking_requests import (
    MAX_DEPTH,
    PageEnd,
    RankingRequest,
    build_rated_requests,
    modalities_of,
)
from query_api.search.request.options import RatedOptions
from query_api.serving.engine import GenerationKey, Snapshot
from query_api.serving.served_index import ServedIndex

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Page:
    """A page to be found: after these ends of the page before, None for the first page.

    A modality whose ranking has ended is not in `ends`. `generations` are those of the first page. Ranks are
    stable where the page is found in these.
    """

    query: QueryEmbedding
    options: RatedOptions
    generations: Mapping[str, GenerationKey]
    ends: Mapping[Modality, PageEnd | None]
    are_ranks_stable: bool = True


def first_page(searcher: Snapshot, query: QueryEmbedding, options: RatedOptions) -> Page:
    generations = {name: shard.key for name, shard in searcher.shards.items()}
    return Page(query, options, generations, dict.fromkeys(modalities_of(options)))


async def searcher_of_page(served: ServedIndex, page: Page) -> Snapshot:
    """Return the searcher of the first page's generations; `ApiError` (generation_gone)."""
    try:
        return await served.searcher_at(page.generations)
    except GenerationGone as error:
        message = f"{error}; begin again without a cursor"
        raise ApiError("generation_gone", message) from None
    except (DamagedFile, OSError) as error:
        log.error("a former generation cannot be opened", error=str(error))
        message = "the first page's generation cannot be opened any more; begin again without a cursor"
        raise ApiError("generation_gone", message) from None


def build_page_requests(page: Page) -> list[RankingRequest]:
    """Ask for the rankings that have not ended, after the ends of the page before."""
    return [
        replace(
            request,
            after=page.ends[request.modality],
            are_ranks_stable=page.are_ranks_stable,
            depth=MAX_DEPTH,
        )
        for request in build_rated_requests(page.query, page.options)
        if request.modality in page.ends
    ]


def next_page(page: Page, rankings: Rankings) -> Page | None:
    """Return the page after this one; None if every ranking has ended or is as deep as pages go."""
    ends = {
        modality: ranking.end
        for modality, ranking in rankings.items()
        if ranking.end is not None and ranking.end.num_before < MAX_DEPTH
    }
    return replace(page, ends=ends) if ends else None
