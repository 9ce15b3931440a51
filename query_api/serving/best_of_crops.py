"""Rankings of one query's crops become one ranking: each content is ranked by its best crop."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice

from clip_index.content import Embeddings, Modality
from clip_index.row_filter import RowFilter
from query_api.serving.engine import Hit, Snapshot


def best_of_crops(rankings: Sequence[list[Hit]], k: int) -> list[Hit]:
    """Return the k best hits of all rankings, each content once.

    The rankings are merged from their beginnings and not sorted again. So the answer to a smaller k
    begins the answer to a greater one, as it does in each of them, and pages stay free of doubles.
    """
    if len(rankings) == 1:
        return rankings[0]
    merged = heapq.merge(*rankings, key=lambda hit: (-hit.score, hit.content_id))
    return list(islice(_each_once(merged), k))


def search_crops(
    searcher: Snapshot, crops: Embeddings, *, k: int, modality: Modality, row_filter: RowFilter | None = None
) -> list[Hit]:
    """Return the k contents that are nearest to any of these embeddings, (crops, dimension). Blocking."""
    return best_of_crops(searcher.search(crops, k=k, modality=modality, row_filter=row_filter), k)


def _each_once(hits: Iterator[Hit]) -> Iterator[Hit]:
    seen: set[str] = set()
    for hit in hits:
        if hit.content_id not in seen:
            seen.add(hit.content_id)
            yield hit
