"""Asks the demo's sample queries through the query service, and measures how good the answers are."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cliptide.demo.garments.catalogue import CatalogueContent, SampleQuery
from cliptide.searching.answers import AnsweredHit, hits_by_modality
from cliptide.searching.gallery import GalleryItem, GallerySection, picture_from_bytes
from cliptide.searching.query_client import QueryClient

K = 8
JPEG = "image/jpeg"


@dataclass(frozen=True, slots=True)
class AnsweredQuery:
    """A sample query and the best pictures for it. `num_right` of them show what it asked for."""

    query: SampleQuery
    hits: Sequence[AnsweredHit]
    num_right: int

    @property
    def precision(self) -> float:
        """The share of right pictures among K. A missing hit counts as wrong."""
        return self.num_right / K

    @property
    def title(self) -> str:
        return self.query.text if self.query.modality == "text" else f"a picture of: {self.query.text}"


def ask(
    client: QueryClient, queries: Iterable[SampleQuery], contents: Mapping[str, CatalogueContent]
) -> list[AnsweredQuery]:
    """Search for pictures with each query. `contents` is the catalogue by content id."""
    answered = []
    for query in queries:
        hits = hits_by_modality(client.search(_request(query)))["image"]
        num_right = sum(contents[hit.content_id].combination == query.combination for hit in hits)
        answered.append(AnsweredQuery(query, hits, num_right))
    return answered


def mean_precision(answered: Iterable[AnsweredQuery]) -> float:
    """Return precision@8, averaged over the text queries; 0 without text queries."""
    precisions = [one.precision for one in answered if one.query.modality == "text"]
    return sum(precisions) / len(precisions) if precisions else 0.0


def gallery_sections(
    answered: Iterable[AnsweredQuery], contents: Mapping[str, CatalogueContent]
) -> list[GallerySection]:
    """Build one section for each query. The pictures are drawn again from the catalogue."""
    return [
        GallerySection(
            title=one.title,
            items=[_item(hit, contents[hit.content_id]) for hit in one.hits],
            picture=_picture(one.query) if one.query.modality == "image" else None,
        )
        for one in answered
    ]


def _request(query: SampleQuery) -> dict[str, Any]:
    request: dict[str, Any] = {"k": K, "modality": "image"}
    if query.modality == "text":
        return request | {"text": query.text}
    return request | {"image": base64.b64encode(query.image_bytes()).decode()}


def _item(hit: AnsweredHit, content: CatalogueContent) -> GalleryItem:
    return GalleryItem(f"{hit.content_id}: {content.combination}", hit.score, _picture(content))


def _picture(drawn: CatalogueContent | SampleQuery) -> str:
    return picture_from_bytes(drawn.image_bytes(), JPEG)
