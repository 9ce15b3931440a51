"""From examples, or from an owner's uploads, to recommended hits. Blocking: for a worker."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from clip_index.content import MODALITIES, Modality, unit_mean
from clip_index.row_filter import AnyOf, RowFilter
from query_api.recommend.diversity import diversify
from query_api.recommend.interests import Interest, PastUpload, shares
from query_api.recommend.models import Because, RecommendRequest
from query_api.search.ranking.query_embedding import QueryEmbedding, combined_embedding, combined_query
from query_api.search.ranking.ranking import find_rankings
from query_api.search.ranking.ranking_requests import (
    RankingRequest,
    build_ranking_requests,
    modalities_of,
    without_owner,
)
from query_api.serving.engine import Hit, Snapshot

NUM_REMEMBERED = 500
_POOL = 5  # candidates for each hit, where more than the score decides
_MAX_POOL = 1000
_ALWAYS_COMPARED = 200  # hits of a ranking, however few are its share of the answer


@dataclass(frozen=True, slots=True)
class KnownExample:
    """A positive or negative example with its embedding; `position` is its index in the request's list."""

    position: int
    content_id: str | None
    query: QueryEmbedding
    weight: float


@dataclass(frozen=True, slots=True)
class Recommended:
    hit: Hit
    because: Because


@dataclass(frozen=True, slots=True)
class _Source:
    """A ranking to take hits from, and how many of the answer's hits are its share.

    Its hits are found when they are taken, because all of them together cost far more than an answer needs.
    """

    hits: Iterator[Hit]
    share: int
    because: Because


def recommend_by_examples(
    searcher: Snapshot,
    positive: Sequence[KnownExample],
    negative: Sequence[KnownExample],
    wanted: RecommendRequest,
) -> dict[Modality, list[Recommended]]:
    """Rank by `2 · (weighted mean of positives) − (weighted mean of negatives)`.

    The factor, as in Qdrant's average-vector strategy, keeps the answer near the positives:
    any two embeddings of one modality are so alike that a plain difference leaves mostly noise.
    """
    requests = rankings_of_examples(positive, negative, wanted)
    recommended = {}
    for request, ranking in zip(requests, find_rankings(searcher, requests), strict=True):
        hits = islice(_diversified(searcher, ranking.hits, wanted, num_wanted=wanted.k), wanted.k)
        recommended[request.modality] = [
            Recommended(hit, _nearest_example(searcher, hit, positive)) for hit in hits
        ]
    return recommended


def rankings_of_examples(
    positive: Sequence[KnownExample], negative: Sequence[KnownExample], wanted: RecommendRequest
) -> list[RankingRequest]:
    query = _example_query(positive, negative)
    return [replace(one, k=_pool_size(wanted)) for one in build_ranking_requests(query, wanted)]


def find_history(
    searcher: Snapshot, owner_id: str, modalities: Collection[Modality] = MODALITIES
) -> list[PastUpload]:
    """Read what an owner uploaded last, of these modalities, the newest first."""
    owned = RowFilter(must=(AnyOf("owner_id", (owner_id,)),))
    found = [
        one
        for modality in modalities
        for one in searcher.newest(k=NUM_REMEMBERED, modality=modality, row_filter=owned)
    ]
    found.sort(key=lambda one: -one.position.occurred_at_ms)
    locations = [one.location for one in found[:NUM_REMEMBERED]]
    uploads = zip(searcher.read_many(locations, ()), locations, strict=True)
    seeds = sorted(uploads, key=lambda pair: (-pair[0].facts.occurred_at_ms, pair[0].content_id))
    return [
        PastUpload(content.content_id, unit_mean(searcher.embeddings(location)), content.facts.occurred_at_ms)
        for content, location in seeds
    ]


def recommend_by_interests(
    searcher: Snapshot, interests: Sequence[Interest], wanted: RecommendRequest
) -> dict[Modality, list[Recommended]]:
    """Give each interest its share of the k hits, and the share `novelty` to hits outside all interests."""
    if not interests:
        return {modality: [] for modality in modalities_of(wanted)}
    num_novel = round(wanted.novelty * wanted.k)
    known = shares([interest.weight for interest in interests], wanted.k - num_novel)
    num_hits = [*known, num_novel]
    recommended = {}
    for modality in modalities_of(wanted):
        sources = _sources(searcher, interests, modality=modality, wanted=wanted, num_hits=num_hits)
        recommended[modality] = _merge(sources, wanted.k)
    return recommended


def _example_query(positive: Sequence[KnownExample], negative: Sequence[KnownExample]) -> QueryEmbedding:
    weights = [2 * example.weight / len(positive) for example in positive]
    weights += [-example.weight / len(negative) for example in negative]
    return combined_query([example.query for example in (*positive, *negative)], weights)


def _nearest_example(searcher: Snapshot, hit: Hit, positive: Sequence[KnownExample]) -> Because:
    embedding = unit_mean(searcher.embeddings(hit.location))
    nearest = max(positive, key=lambda e: (e.weight * float(e.query.embedding @ embedding), -e.position))
    return Because(kind="example", content_id=nearest.content_id, example=nearest.position)


def _sources(
    searcher: Snapshot,
    interests: Sequence[Interest],
    *,
    modality: Modality,
    wanted: RecommendRequest,
    num_hits: Sequence[int],
) -> list[_Source]:
    """Return one ranking for each interest, and one of contents near all interests but inside none."""
    requests = _rankings_of(interests, wanted, modality)
    *found, around = [ranking.hits for ranking in find_rankings(searcher, requests)]
    rankings: list[Iterable[Hit]] = [*found, _outside(searcher, around, interests)]
    reasons = [Because(kind="interest", content_id=i.medoid.content_id) for i in interests]
    reasons.append(Because(kind="novelty", content_id=None))
    return [
        _Source(_diversified(searcher, hits, wanted, num_wanted=share), share, because)
        for hits, share, because in zip(rankings, num_hits, reasons, strict=True)
    ]


def rankings_of_interests(interests: Sequence[Interest], wanted: RecommendRequest) -> list[RankingRequest]:
    """Return every ranking that a recommendation by interests asks for."""
    if not interests:
        return []
    return [one for modality in modalities_of(wanted) for one in _rankings_of(interests, wanted, modality)]


def _rankings_of(
    interests: Sequence[Interest], wanted: RecommendRequest, modality: Modality
) -> list[RankingRequest]:
    """Ask for one ranking of each interest; the last one is around all of them."""
    centre = combined_embedding([i.medoid.embedding for i in interests], [i.weight for i in interests])
    queries = [QueryEmbedding(interest.medoid.embedding) for interest in interests]
    requests = [_request(query, wanted, modality=modality, k=_pool_size(wanted)) for query in queries]
    num_around = min(_POOL * wanted.k, _MAX_POOL)
    return [*requests, _request(QueryEmbedding(centre), wanted, modality=modality, k=num_around)]


def _request(
    query: QueryEmbedding, wanted: RecommendRequest, *, modality: Modality, k: int
) -> RankingRequest:
    [request] = build_ranking_requests(query, wanted.model_copy(update={"modality": modality}))
    return replace(request, k=k, row_filter=without_owner(request.row_filter, wanted.owner_id))


def _outside(searcher: Snapshot, hits: Sequence[Hit], interests: Sequence[Interest]) -> Iterator[Hit]:
    """Yield the hits that lie inside no interest; the hit that is farthest from all interests comes first."""
    medoids = np.stack([interest.medoid.embedding for interest in interests])
    radii = np.array([interest.radius for interest in interests])
    cosines = [medoids @ unit_mean(searcher.embeddings(hit.location)) for hit in hits]
    outside = [(float(c.max()), hit) for c, hit in zip(cosines, hits, strict=True) if (c < radii).all()]
    yield from (hit for _, hit in sorted(outside, key=lambda pair: (pair[0], pair[1].content_id)))


def _pool_size(wanted: RecommendRequest) -> int:
    return wanted.k if wanted.diversity == 0 else max(wanted.k, min(_POOL * wanted.k, _MAX_POOL))


def _diversified(
    searcher: Snapshot, found: Iterable[Hit], wanted: RecommendRequest, *, num_wanted: int
) -> Iterator[Hit]:
    """Yield hits in an order in which neighbours differ; those far behind what is wanted follow by score."""
    hits = iter(found)
    num_compared = 0 if wanted.diversity == 0 else max(_ALWAYS_COMPARED, _POOL * num_wanted)
    compared = list(islice(hits, num_compared))
    if compared:
        embeddings = np.stack([unit_mean(searcher.embeddings(hit.location)) for hit in compared])
        order = diversify([hit.score for hit in compared], embeddings, wanted.diversity)
        yield from (compared[position] for position in order)
    yield from hits


def _merge(sources: Sequence[_Source], k: int) -> list[Recommended]:
    """Take its share from each source, interleaved.

    If a source runs out, the others fill its share, the heaviest first.
    """
    slots = [
        ((rank + 0.5) / source.share, number)
        for number, source in enumerate(sources)
        for rank in range(source.share)
    ]
    merged: dict[str, Recommended] = {}
    for _, number in sorted(slots):
        for source in (number, *range(len(sources))):
            hit = next((hit for hit in sources[source].hits if hit.content_id not in merged), None)
            if hit is not None:
                merged[hit.content_id] = Recommended(hit, sources[source].because)
                break
    return list(merged.values())[:k]
