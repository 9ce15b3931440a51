"""Ranks a gallery by embeddings: by cosine similarity, and by position where that is equal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cliptide.pairs.gallery import Gallery, RightAnswers
from cliptide.pairs.quality import DEPTH, Quality, Ranking, TwoWayQuality, score_rankings

Rows = NDArray[np.float32]  # (rows, dimension), of length 1
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings of items. A long caption has several rows, and its best row counts.

    `starts` holds the row at which each item begins.
    """

    rows: Rows
    starts: NDArray[np.int64]

    @classmethod
    def one_row_each(cls, rows: Rows) -> Embedded:
        return cls(rows, np.arange(len(rows)))

    @classmethod
    def of_parts(cls, parts: list[Rows]) -> Embedded:
        lengths = [len(part) for part in parts]
        return cls(np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64))

    def __len__(self) -> int:
        return len(self.starts)

    def similarities(self, targets: Embedded, first: int, last: int) -> Rows:
        """Return (queries from `first` to `last`, targets): the best of their rows' cosines."""
        end = self.starts[last] if last < len(self.starts) else len(self.rows)
        rows = self.rows[self.starts[first] : end] @ targets.rows.T
        rows = np.maximum.reduceat(rows, self.starts[first:last] - self.starts[first], axis=0)
        best: Rows = np.maximum.reduceat(rows, targets.starts, axis=1)
        return best


def rank(queries: Embedded, targets: Embedded, asked: list[int]) -> Ranking:
    """Return the positions of the 100 best targets of each query that is asked."""
    parts = [np.zeros((0, min(DEPTH, len(targets))), dtype=np.int64)]
    for first in range(0, len(queries), _CHUNK):
        last = min(first + _CHUNK, len(queries))
        wanted = [number - first for number in asked if first <= number < last]
        similarities = queries.similarities(targets, first, last)[wanted]
        parts.append(np.argsort(-similarities, axis=1, kind="stable")[:, :DEPTH])
    return np.concatenate(parts)


def measure(gallery: Gallery, pictures: Embedded, captions: Embedded) -> TwoWayQuality:
    """Rank pictures for each caption and captions for each picture, and score both."""
    to_image, to_text = gallery.text_to_image(), gallery.image_to_text()
    return TwoWayQuality(
        text_to_image=_scored(rank(captions, pictures, to_image.asked), to_image),
        image_to_text=_scored(rank(pictures, captions, to_text.asked), to_text),
        num_pairs=gallery.num_pairs,
    )


def _scored(ranking: Ranking, right: RightAnswers) -> Quality | None:
    return score_rankings(ranking, right) if right.asked else None
