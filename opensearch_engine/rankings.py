"""Requests that rank contents by their vectors, and the scores that OpenSearch answers. Pure.

Each modality is a graph of its own. A text's windows are nested vectors, of which the best one scores.
"""

from __future__ import annotations

from typing import Any

from clip_index.content import Modality
from clip_index.row_filter import RowFilter
from opensearch_engine.connection import Json
from opensearch_engine.documents import SHOWN_FIELDS
from opensearch_engine.filters import live_contents
from opensearch_engine.layout import SPACE

MAX_RESULTS = 10_000
"""What OpenSearch gives in one answer, and the greatest k of its k-NN query."""

_LEAST_CANDIDATES = 100


def nearest(query: list[float], modality: Modality, num_ranked: int, row_filter: RowFilter | None) -> Json:
    """Ask the graph for the nearest contents, for twice as many as are wanted, because each shard and segment
    of OpenSearch answers approximately, and filtered or deleted contents use candidates up."""
    num_candidates = min(MAX_RESULTS, max(_LEAST_CANDIDATES, 2 * num_ranked))
    knn: Json = {"vector": query, "k": num_candidates}
    if row_filter is not None:
        knn["filter"] = live_contents(modality, row_filter)
    ranked = {"nested": {"path": "vectors", "score_mode": "max", "query": {"knn": {_field(modality): knn}}}}
    return _ranking(ranked, num_candidates)


def exact(query: list[float], modality: Modality, num_ranked: int, row_filter: RowFilter | None) -> Json:
    """Score every content that passes the filter."""
    scored = {
        "script_score": {
            "query": {"exists": {"field": _field(modality)}},
            "script": {
                "lang": "knn",
                "source": "knn_score",
                "params": {"field": _field(modality), "query_value": query, "space_type": SPACE},
            },
        }
    }
    ranked = {
        "bool": {
            "filter": [live_contents(modality, row_filter)],
            "must": [{"nested": {"path": "vectors", "score_mode": "max", "query": scored}}],
        }
    }
    return _ranking(ranked, min(MAX_RESULTS, 2 * num_ranked))


def cosine_from_score(score: float) -> float:
    """Turn the plugin's score of an inner product back into the product: it maps -1 … 1 to 1/2 … 2."""
    return score - 1.0 if score >= 1.0 else 1.0 - 1.0 / score


def _ranking(ranked: Json, size: int) -> Json:
    body: dict[str, Any] = {"query": ranked, "size": size, "_source": list(SHOWN_FIELDS)}
    return {**body, "track_total_hits": False}


def _field(modality: Modality) -> str:
    return f"vectors.{modality}"
