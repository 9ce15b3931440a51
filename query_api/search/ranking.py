"""Which hits of a ranking are answered: those after a place, each picture once, none that is excluded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from clip_index.content import Modality
from clip_index.reading.searcher import Searcher
from clip_index.reading.snapshot import Hit
from clip_index.row_filter import RowFilter
from query_api.search.query_embedding import QueryEmbedding

MAX_DEPTH = 10_000
"""Hits behind which no page goes on: every page ranks all that stands before it again."""


@dataclass(frozen=True, slots=True)
class Place:
    """The last hit of a page, and how many hits of the ranking were looked at up to it."""

    score: float
    content_id: str
    num_before: int


@dataclass(frozen=True, slots=True)
class Ask:
    """One ranking of one modality: best score first, equal scores by content id.

    All pages of a ranking are found with the same `depth`; None for one without pages.
    """

    query: QueryEmbedding
    modality: Modality
    k: int
    min_score: float | None = None
    row_filter: RowFilter | None = None
    is_collapsing: bool = False
    after: Place | None = None
    depth: int | None = None

    @property
    def num_first_searched(self) -> int:
        return self.k + len(self.query.excluded_ids) + (self.after.num_before if self.after else 0)


@dataclass(frozen=True, slots=True)
class Selected:
    """The hits of one ask and where the next page begins; `next_place` is None behind the last hit."""

    hits: list[Hit]
    next_place: Place | None


def find_all(searcher: Searcher, asks: Sequence[Ask], newest: Searcher | None = None) -> list[Selected]:
    """Answer asks in order; those that differ in their query alone are searched together.

    With `newest`, contents that are no longer live there are left out.
    """
    together: dict[object, list[int]] = defaultdict(list)
    for position, ask in enumerate(asks):
        kind = (ask.modality, ask.num_first_searched, ask.row_filter and ask.row_filter.key, ask.depth)
        together[kind].append(position)
    found: dict[int, list[Hit]] = {}
    for positions in together.values():
        first = asks[positions[0]]
        answers = _search(searcher, [asks[p] for p in positions], first.num_first_searched)
        found.update(zip(positions, answers, strict=True))
    return [_select(searcher, ask, found[position], newest) for position, ask in enumerate(asks)]


def _search(searcher: Searcher, asks: Sequence[Ask], num_wanted: int) -> list[list[Hit]]:
    first = asks[0]
    queries = np.stack([ask.query.embedding for ask in asks])
    return searcher.search(
        queries, k=num_wanted, modality=first.modality, row_filter=first.row_filter, depth=first.depth
    )


def _select(searcher: Searcher, ask: Ask, ranking: list[Hit], newest: Searcher | None) -> Selected:
    """Take k hits, asking for twice as many while too few of them are to be answered."""
    num_wanted = ask.num_first_searched
    while True:
        taken = list(islice(_eligible(searcher, ask, ranking, newest), ask.k))
        if len(taken) == ask.k or len(ranking) < num_wanted:
            break
        num_wanted *= 2
        [ranking] = _search(searcher, [ask], num_wanted)
    hits = [hit for _, hit in taken]
    if len(hits) < ask.k:
        return Selected(hits, None)
    rank, last = taken[-1]
    return Selected(hits, Place(last.score, last.content_id, rank + 1))


def _eligible(
    searcher: Searcher, ask: Ask, ranking: Sequence[Hit], newest: Searcher | None
) -> Iterator[tuple[int, Hit]]:
    seen: set[bytes] = set()
    for rank, hit in enumerate(ranking):
        if ask.min_score is not None and hit.score < ask.min_score:
            return
        if hit.content_id in ask.query.excluded_ids:
            continue
        if ask.is_collapsing:
            embedding = searcher.embeddings(hit.location).tobytes()
            if embedding in seen:
                continue
            seen.add(embedding)
        if ask.after is not None and rank < ask.after.num_before:
            continue
        if newest is not None and newest.find(hit.content_id) is None:
            continue
        yield rank, hit
