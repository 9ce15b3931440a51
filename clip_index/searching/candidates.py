"""Chooses the best hits of one query among those that each segment found."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clip_index.content import Modality
from clip_index.searching.stacks import Source
from clip_index.views.best_rows import RowScores
from clip_index.views.snapshot import Hit


class Candidates:
    """The rows that segments and tails found for one query."""

    def __init__(
        self,
        sources: Sequence[Source],
        found: Sequence[RowScores],
        modality: Modality,
    ) -> None:
        self._sources = sources
        self._found = found
        self._modality = modality
        if len(found) == 1:  # these rows are in order
            self._scores, self._row_of = found[0].scores, found[0].rows
            self._source_of = np.zeros(len(self._row_of), np.int64)
            return
        scores = np.concatenate([rows.scores for rows in found]) if found else np.empty(0, np.float32)
        order = np.argsort(-scores, kind="stable")
        self._scores = scores[order]
        ends = np.cumsum([len(rows.rows) for rows in found], dtype=np.int64)
        self._source_of = np.searchsorted(ends, order, side="right")
        self._row_of = np.concatenate([rows.rows for rows in found])[order] if found else order

    def joined_with(self, others: Candidates) -> Candidates:
        """Return the candidates of both, which belong to one query."""
        sources, found = [*self._sources, *others._sources], [*self._found, *others._found]
        return Candidates(sources, found, self._modality)

    def best(self, k: int) -> list[Hit]:
        """Return the k best hits. Read only as many candidates as that takes.

        Their content ids are distinct, because a searcher shows an id that lies in several shards once.
        """
        hits = self._hits(self._num_at_least_as_good(k))
        if len({hit.score for hit in hits}) < len(hits):
            hits.sort(key=lambda hit: (-hit.score, hit.content_id))
        return hits[:k]

    def _num_at_least_as_good(self, num_wanted: int) -> int:
        """Return how many candidates score as high as the wanted ones.

        All equal scores at the end are included, because content ids decide between them.
        """
        if num_wanted >= len(self._scores):
            return len(self._scores)
        return int(np.searchsorted(-self._scores, -self._scores[num_wanted - 1], side="right"))

    def _hits(self, num_read: int) -> list[Hit]:
        """Return hits of the first candidates, in their order by score."""
        hits = []
        candidates = zip(
            self._scores[:num_read].tolist(),
            self._source_of[:num_read].tolist(),
            self._row_of[:num_read].tolist(),
            strict=True,
        )
        for score, number, found_row in candidates:
            location = self._sources[number].locate(found_row)
            content_id = location.view.segment.content_id(location.row)
            hits.append(Hit(content_id, score, self._modality, location))
        return hits
