"""From examples, or from an owner's uploads, to recommended hits. Blocking: runs in a worker."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from clip_index.content import MODALITIES, Modality, unit_mean
from clip_index.reading.searcher import Searcher
from clip_index.reading.snapshot import Hit
from query_api.recommend.diversity import diversify
from query_api.recommend.interests import Interest, PastUpload, find_interests, shares
from query_api.recommend.models import Because, RecommendRequest
from query_api.search.query_embedding import QueryEmbedding, combined_embedding
from query_api.search.ranking import Ask, find_all
from query_api.search.retrieval import build_asks, modalities_of, without_owner

NUM_REMEMBERED = 500
_POOL = 5  # candidates for each hit where scores alone do not decide
_MAX_POOL = 1000


@dataclass(frozen=True, slots=True)
class KnownExample:
    """A positive or negative example with its embedding; `position` is its place in the request."""

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
    """A ranking that hits are taken from, and how many of them are its share."""

    hits: list[Hit]
    share: int
    because: Because


def recommend_by_examples(
    searcher: Searcher,
    positive: Sequence[KnownExample],
    negative: Sequence[KnownExample],
    wanted: RecommendRequest,
) -> dict[Modality, list[Recommended]]:
    """Rank by `2 · (weighted mean of positives) − (weighted mean of negatives)`.

    The factor, as in Qdrant's average-vector strategy, keeps the answer near the positives:
    any two embeddings of one modality are so alike that a plain difference leaves mostly noise.
    """
    query = _example_query(positive, negative)
    asks = [replace(ask, k=_pool_size(wanted)) for ask in build_asks(query, wanted)]
    recommended = {}
    for ask, selected in zip(asks, find_all(searcher, asks), strict=True):
        hits = _diversified(searcher, selected.hits, wanted)
        recommended[ask.modality] = [
            Recommended(hit, _nearest_example(searcher, hit, positive)) for hit in hits
        ]
    return recommended


def find_owner_interests(
    searcher: Searcher, owner_id: str, modalities: Collection[Modality] = MODALITIES
) -> list[Interest]:
    """Cluster what an owner uploaded last, of some modalities; no interests without uploads."""
    locations = searcher.find_owner(owner_id)
    uploads = zip(searcher.read_many(locations, ()), locations, strict=True)
    seeds = [pair for pair in uploads if pair[0].modality in modalities]
    seeds.sort(key=lambda pair: (-pair[0].facts.occurred_at_ms, pair[0].content_id))
    newest = [
        (content.content_id, unit_mean(searcher.embeddings(location)), content.facts.occurred_at_ms)
        for content, location in seeds[:NUM_REMEMBERED]
    ]
    return find_interests([PastUpload(*upload) for upload in newest])


def recommend_by_interests(
    searcher: Searcher, interests: Sequence[Interest], wanted: RecommendRequest
) -> dict[Modality, list[Recommended]]:
    """Give each interest its share of k, and `novelty` to what lies outside all of them."""
    if not interests:
        return {modality: [] for modality in modalities_of(wanted)}
    num_novel = round(wanted.novelty * wanted.k)
    known = shares([interest.weight for interest in interests], wanted.k - num_novel)
    return {
        modality: _merge(_sources(searcher, interests, modality, wanted, [*known, num_novel]), wanted.k)
        for modality in modalities_of(wanted)
    }


def _example_query(positive: Sequence[KnownExample], negative: Sequence[KnownExample]) -> QueryEmbedding:
    examples = [*positive, *negative]
    weights = [2 * example.weight / len(positive) for example in positive]
    weights += [-example.weight / len(negative) for example in negative]
    excluded = frozenset[str]().union(*(example.query.excluded_ids for example in examples))
    return QueryEmbedding(
        combined_embedding([example.query.embedding for example in examples], weights), excluded
    )


def _nearest_example(searcher: Searcher, hit: Hit, positive: Sequence[KnownExample]) -> Because:
    embedding = unit_mean(searcher.embeddings(hit.location))
    nearest = max(positive, key=lambda e: (e.weight * float(e.query.embedding @ embedding), -e.position))
    return Because(kind="example", content_id=nearest.content_id, example=nearest.position)


def _sources(
    searcher: Searcher,
    interests: Sequence[Interest],
    modality: Modality,
    wanted: RecommendRequest,
    known_shares: Sequence[int],
) -> list[_Source]:
    """One ranking for each interest, and one of what is near all of them and inside none."""
    centre = combined_embedding([i.medoid.embedding for i in interests], [i.weight for i in interests])
    queries = [QueryEmbedding(interest.medoid.embedding) for interest in interests]
    asks = [_ask(query, modality, wanted, _pool_size(wanted)) for query in queries]
    asks.append(_ask(QueryEmbedding(centre), modality, wanted, min(_POOL * wanted.k, _MAX_POOL)))
    *rankings, around = [selected.hits for selected in find_all(searcher, asks)]
    reasons = [Because(kind="interest", content_id=i.medoid.content_id) for i in interests]
    rankings.append(_outside(searcher, around, interests))
    reasons.append(Because(kind="novelty", content_id=None))
    return [
        _Source(_diversified(searcher, hits, wanted), share, because)
        for hits, share, because in zip(rankings, known_shares, reasons, strict=True)
    ]


def _ask(query: QueryEmbedding, modality: Modality, wanted: RecommendRequest, k: int) -> Ask:
    [ask] = build_asks(query, wanted.model_copy(update={"modality": modality}))
    return replace(ask, k=k, row_filter=without_owner(ask.row_filter, wanted.owner_id))


def _outside(searcher: Searcher, hits: Sequence[Hit], interests: Sequence[Interest]) -> list[Hit]:
    """Of what is near the centre, keep what lies inside no interest; the farthest from all comes first."""
    medoids = np.stack([interest.medoid.embedding for interest in interests])
    radii = np.array([interest.radius for interest in interests])
    cosines = [medoids @ unit_mean(searcher.embeddings(hit.location)) for hit in hits]
    outside = [(float(c.max()), hit) for c, hit in zip(cosines, hits, strict=True) if (c < radii).all()]
    return [hit for _, hit in sorted(outside, key=lambda pair: (pair[0], pair[1].content_id))]


def _pool_size(wanted: RecommendRequest) -> int:
    return wanted.k if wanted.diversity == 0 else max(wanted.k, min(_POOL * wanted.k, _MAX_POOL))


def _diversified(searcher: Searcher, hits: list[Hit], wanted: RecommendRequest) -> list[Hit]:
    if wanted.diversity == 0 or not hits:
        return hits
    embeddings = np.stack([unit_mean(searcher.embeddings(hit.location)) for hit in hits])
    order = diversify([hit.score for hit in hits], embeddings, wanted.k, wanted.diversity)
    return [hits[place] for place in order]


def _merge(sources: Sequence[_Source], k: int) -> list[Recommended]:
    """Take from each source its share, interleaved; what one cannot give the others do, heaviest first."""
    slots = [
        ((rank + 0.5) / source.share, number)
        for number, source in enumerate(sources)
        for rank in range(source.share)
    ]
    left = [iter(source.hits) for source in sources]
    merged: dict[str, Recommended] = {}
    for _, number in sorted(slots):
        for source in (number, *range(len(sources))):
            hit = next((hit for hit in left[source] if hit.content_id not in merged), None)
            if hit is not None:
                merged[hit.content_id] = Recommended(hit, sources[source].because)
                break
    return list(merged.values())[:k]
