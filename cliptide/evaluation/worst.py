"""The worst queries as an HTML gallery: each with what was found instead of its right answer."""

from __future__ import annotations

import numpy as np

from clip_index.encoder.image_headers import ImageLimits
from clip_index.encoder.images import make_thumbnail
from clip_index.errors import BadContent
from cliptide.evaluation.answers import OTHER
from cliptide.pairs.gallery import GalleryItem, RightAnswers
from cliptide.pairs.quality import Quality, Ranking
from cliptide.searching import gallery as html

_NUM_FOUND = 8
_SIDE = 160


def worst_sections(
    ranking: Ranking, quality: Quality, right: RightAnswers, num_queries: int
) -> list[html.GallerySection]:
    """Build a section for each of the worst queries: its first right answer, then what was found.

    A query is worse the smaller its MRR is, and then its nDCG.
    """
    order = np.lexsort((quality.scores[:, 4], quality.scores[:, 3]))[:num_queries]
    return [
        _section(ranking[at].tolist(), float(quality.scores[at, 3]), right, right.asked[at]) for at in order
    ]


def _section(ranked: list[int], mrr: float, right: RightAnswers, query: int) -> html.GallerySection:
    asked, wanted = right.queries[query], right.of(query)
    rank = f"first right answer at rank {round(1 / mrr)}" if mrr else "no right answer among the first 100"
    expected = _item(right.targets[min(wanted)], "right answer: ", 1.0)
    found = [
        _item(right.targets[n], "right: " if n in wanted else "wrong: ", 1 / place)
        if n != OTHER
        else html.GalleryItem("another content", 1 / place)
        for place, n in enumerate(ranked[:_NUM_FOUND], start=1)
    ]
    return html.GallerySection(f"{asked.title} — {rank}", [expected, *found], picture=_picture(asked))


def _item(item: GalleryItem, prefix: str, score: float) -> html.GalleryItem:
    text = item.key if item.read is None else None
    return html.GalleryItem(prefix + item.title, score, _picture(item), text)


def _picture(item: GalleryItem) -> str | None:
    if item.read is None:
        return None
    try:
        thumbnail = make_thumbnail(item.read(), _SIDE, ImageLimits())
    except (OSError, BadContent):
        return None
    return html.picture_from_bytes(thumbnail, "image/webp")
