"""The rate step: hits get their percentiles, and may be ranked by them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from clip_index.content import Modality
from query_api.search.ranking.query_embedding import QueryEmbedding
from query_api.search.ranking.ranking import Rankings
from query_api.search.request.options import RatedOptions
from query_api.serving.engine import Hit

RatedHit: TypeAlias = tuple[Hit, float | None]
"""A hit and its percentile, None without a scale."""

RatedHits: TypeAlias = Mapping[Modality | Literal["all"], Sequence[RatedHit]]
"""The hits under the names by which the answer shows them."""


def rate(query: QueryEmbedding, rankings: Rankings, options: RatedOptions) -> RatedHits:
    """Return the rated hits of each modality, or those of all modalities in one ranking."""
    if not options.by_modality:
        return {"all": rank_together(query, rankings)[: options.k]}
    return {modality: _rate_hits(query, modality, ranking.hits) for modality, ranking in rankings.items()}


def rank_together(query: QueryEmbedding, rankings: Rankings) -> list[RatedHit]:
    """Rank by percentile; equal percentiles by how many times the background's greatest lift they reach.

    The percentile is 1 for every hit beyond all background queries, so there the lift decides.
    """

    def order(rated: RatedHit) -> tuple[float, float, str]:
        hit, percentile = rated
        if percentile is None:
            return 0.0, math.inf, hit.content_id
        return -percentile, -query.scales[hit.modality].reach(query.embedding, hit.score), hit.content_id

    rated = [pair for modality, one in rankings.items() for pair in _rate_hits(query, modality, one.hits)]
    return sorted(rated, key=order)


def _rate_hits(query: QueryEmbedding, modality: Modality, hits: Sequence[Hit]) -> list[RatedHit]:
    scale = query.scales.get(modality)
    if scale is None:
        return [(hit, None) for hit in hits]
    return list(zip(hits, scale.percentiles(query.embedding, [hit.score for hit in hits]), strict=True))
