"""One page of a ranking. Blocking: runs in a worker."""

from __future__ import annotations

from dataclasses import replace

from query_api.search.cursors import Page, write_cursor
from query_api.search.options import RatedOptions
from query_api.search.query_embedding import QueryEmbedding
from query_api.search.ranking import MAX_DEPTH, find_all
from query_api.search.retrieval import build_rated_asks, build_results, modalities_of, write_answer
from query_api.serving.engine import Snapshot
from query_api.telemetry.stages import Stages


def first_page(searcher: Snapshot, query: QueryEmbedding, options: RatedOptions) -> Page:
    generations = {name: shard.key for name, shard in searcher.shards.items()}
    return Page(query, options, generations, dict.fromkeys(modalities_of(options)))


def search_page(searcher: Snapshot, newest: Snapshot, page: Page, *, key: bytes, stages: Stages) -> bytes:
    """Answer a page of the searcher that the first page was found in, as JSON.

    Contents that are no longer live in the newest searcher are left out. The snapshot of
    the answer is the first page's.
    """
    with stages.measure("search"):
        asks = [
            replace(ask, after=page.places[ask.modality], depth=MAX_DEPTH)
            for ask in build_rated_asks(page.query, page.options)
            if ask.modality in page.places
        ]
        observed = searcher.observed_by(stages.search_observer)
        selected = find_all(observed, asks, None if newest is searcher else newest)
        found = {ask.modality: one for ask, one in zip(asks, selected, strict=True)}
    with stages.measure("columns"):
        results = build_results(searcher, page.query, found, page.options)
    places = {
        modality: selected.next_place
        for modality, selected in found.items()
        if selected.next_place is not None and selected.next_place.num_before < MAX_DEPTH
    }
    cursor = write_cursor(replace(page, places=places), key) if places else None
    return write_answer({"results": results, "next_cursor": cursor}, searcher, stages)
