"""Requests that rank contents by their vectors, and the scores that OpenSearch answers. Pure.

Each modality is a graph of its own. A text's windows are nested vectors, of which the best one scores.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import xxhash

from clip_index.content import Modality
from clip_index.row_filter import RowFilter
from opensearch_engine.connection import Json
from opensearch_engine.documents import SHOWN_FIELDS
from opensearch_engine.filters import live_contents
from opensearch_engine.layout import SPACE

MAX_RESULTS = 10_000
"""What OpenSearch gives in one answer, and the greatest k of its k-NN query."""

_LEAST_CANDIDATES = 100
_MORE_READ = 32  # hits behind the last one, among which equal scores are ordered by content id


@dataclass(frozen=True, slots=True)
class Ranked:
    """What is asked of every query: its k best, of a ranking of `num_ranked` contents."""

    modality: Modality
    k: int
    num_ranked: int
    row_filter: RowFilter | None

    @property
    def num_candidates(self) -> int:
        """How many candidates the graph is asked for: twice as many as are ranked.

        Each shard and segment of OpenSearch answers approximately, and filtered or deleted contents use
        candidates up.
        """
        return min(MAX_RESULTS, max(_LEAST_CANDIDATES, 2 * self.num_ranked))

    @property
    def num_read(self) -> int:
        return min(MAX_RESULTS, self.k + _MORE_READ)


def nearest(query: list[float], ranked: Ranked) -> Json:
    """Ask the graph for the nearest contents."""
    knn: Json = {"vector": query, "k": ranked.num_candidates}
    if ranked.row_filter is not None:
        knn["filter"] = live_contents(ranked.modality, ranked.row_filter)
    scored = {"knn": {_field(ranked.modality): knn}}
    return _ranking({"nested": {"path": "vectors", "score_mode": "max", "query": scored}}, ranked)


def exact(query: list[float], ranked: Ranked) -> Json:
    """Score every content that passes the filter."""
    field = _field(ranked.modality)
    scored = {
        "script_score": {
            "query": {"exists": {"field": field}},
            "script": {
                "lang": "knn",
                "source": "knn_score",
                "params": {"field": field, "query_value": query, "space_type": SPACE},
            },
        }
    }
    query_of_best = {
        "bool": {
            "filter": [live_contents(ranked.modality, ranked.row_filter)],
            "must": [{"nested": {"path": "vectors", "score_mode": "max", "query": scored}}],
        }
    }
    return _ranking(query_of_best, ranked)


def copies_for(body: Json) -> str:
    """Return a `preference` with which one query always asks the same copies of the shards.

    Each copy of a shard has built a graph of its own, so two of them rank a little differently. If the
    next page came from another copy, hits could be repeated or skipped.
    """
    return xxhash.xxh3_64_hexdigest(json.dumps(body["query"], sort_keys=True).encode())


def cosine_from_score(score: float) -> float:
    """Turn the plugin's score of an inner product back into the product: it maps -1 … 1 to 1/2 … 2."""
    return score - 1.0 if score >= 1.0 else 1.0 - 1.0 / score


def _ranking(query: Json, ranked: Ranked) -> Json:
    fields = list(SHOWN_FIELDS)
    return {"query": query, "size": ranked.num_read, "_source": fields, "track_total_hits": False}


def _field(modality: Modality) -> str:
    return f"vectors.{modality}"
