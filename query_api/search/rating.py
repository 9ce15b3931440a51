"""Hits with their percentiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from clip_index.content import Modality
from clip_index.reading.snapshot import Hit
from query_api.search.query_embedding import QueryEmbedding
from query_api.search.ranking import Ask, Selected

RatedHit: TypeAlias = tuple[Hit, float | None]
"""A hit and its percentile, None without a scale."""


def bound(ask: Ask, min_percentile: float) -> Ask:
    """Ask for hits of a least percentile; without a scale no hit has one."""
    scale = ask.query.scales.get(ask.modality)
    least = math.inf if scale is None else scale.least_score(ask.query.embedding, min_percentile)
    return replace(ask, min_score=least if ask.min_score is None else max(least, ask.min_score))


def rate(query: QueryEmbedding, modality: Modality, hits: Sequence[Hit]) -> list[RatedHit]:
    """Return each hit with its percentile, None without a scale."""
    scale = query.scales.get(modality)
    if scale is None:
        return [(hit, None) for hit in hits]
    return list(zip(hits, scale.percentiles(query.embedding, [hit.score for hit in hits]), strict=True))


def mix(query: QueryEmbedding, found: Mapping[Modality, Selected]) -> list[RatedHit]:
    """Rank by percentile; where nonsense reaches neither hit, by how far they are beyond it."""

    def place(rated: RatedHit) -> tuple[float, float, str]:
        hit, percentile = rated
        if percentile is None:
            return 0.0, math.inf, hit.content_id
        return -percentile, -query.scales[hit.modality].reach(query.embedding, hit.score), hit.content_id

    rated = [pair for modality, selected in found.items() for pair in rate(query, modality, selected.hits)]
    return sorted(rated, key=place)
