"""Who answers the queries of a gallery: a model that ranks the pairs themselves, or a running service."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from clip_index.encoder.protocol import Encoder, PreparedImage
from cliptide.pairs.checking import PairTally, checked_pairs
from cliptide.pairs.gallery import Gallery, GalleryItem, RightAnswers
from cliptide.pairs.pair import BadPair, Pair
from cliptide.pairs.quality import DEPTH, Ranking
from cliptide.pairs.ranking import Embedded, Rows, rank
from cliptide.searching.answers import AnsweredHit, hits_by_modality
from cliptide.searching.query_client import QueryClient, QueryServiceAway

_BATCH = 64
_NUM_CALLS = 4  # at once
_NUM_TRIES, _PAUSE_SECONDS = 5, 1.0
_NUM_NEAREST = 20  # texts that CLIP takes for the same, because they differ in case or punctuation
OTHER = -1  # in a ranking: a content that is in no pair


class Answers(Protocol):
    """Ranks the targets of queries. None: this one cannot answer the direction."""

    @property
    def name(self) -> str: ...

    def rank_pictures(self, right: RightAnswers) -> Ranking | None: ...

    def rank_captions(self, right: RightAnswers) -> Ranking | None: ...


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """Answers by the embeddings of a model. `texts` are the captions that a picture can find."""

    name: str
    pictures: Embedded
    captions: Embedded
    texts: Embedded

    def rank_pictures(self, right: RightAnswers) -> Ranking | None:
        return rank(self.captions, self.pictures, right.asked)

    def rank_captions(self, right: RightAnswers) -> Ranking | None:
        return rank(self.pictures, self.texts, right.asked)


def embed_pictures(
    pairs: Iterable[Pair | BadPair], encoder: Encoder, gallery: Gallery, tally: PairTally
) -> list[Rows]:
    """Check the pairs, add them to the gallery, and embed each picture once."""
    waiting: list[PreparedImage] = []
    parts: list[Rows] = []

    def prepare(pair: Pair, data: bytes) -> PreparedImage:
        encoder.prepare_text(pair.caption)  # a caption that cannot be encoded is a bad pair
        return encoder.prepare_image(data)

    for checked in checked_pairs(pairs, prepare, tally):
        if not gallery.has_picture(checked.digest):
            waiting.append(checked.prepared)
        gallery.add(checked.pair, checked.digest)
        if len(waiting) >= _BATCH:
            parts += encoder.encode(waiting)
            waiting = []
    parts += encoder.encode(waiting)
    return parts


def embed_items(items: Sequence[GalleryItem], encoder: Encoder) -> Embedded:
    """Embed the pictures of a gallery that is complete already."""
    parts: list[Rows] = []
    for start in range(0, len(items), _BATCH):
        files = [item.read() for item in items[start : start + _BATCH] if item.read is not None]
        parts += encoder.encode([encoder.prepare_image(data) for data in files])
    return Embedded.of_parts(parts)


def embed_texts(items: Sequence[GalleryItem], encoder: Encoder) -> Embedded:
    texts = [item.key for item in items]
    parts: list[Rows] = []
    for start in range(0, len(texts), _BATCH):
        parts += encoder.encode([encoder.prepare_text(text) for text in texts[start : start + _BATCH]])
    return Embedded.of_parts(parts)


@dataclass(slots=True)
class ServiceAnswers:
    """Answers by a running query service, so that its index, filters and percentiles count too.

    A picture is found by its content id, and a caption by the text of a hit. `extra` is added to each
    search. `num_other` counts hits of contents that are in no pair; `left_out`, what the index does not hold.
    """

    client: QueryClient
    extra: Mapping[str, Any] = field(default_factory=dict)
    num_other: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    pause: Callable[[float], None] = time.sleep

    @property
    def name(self) -> str:
        return self.client.url

    def rank_pictures(self, right: RightAnswers) -> Ranking | None:
        positions = {item.key: number for number, item in enumerate(right.targets)}
        queries = ({"text": right.queries[number].key} for number in right.asked)
        return self._rank(queries, "image", lambda hit: positions.get(hit.content_id, OTHER))

    def rank_captions(self, right: RightAnswers) -> Ranking | None:
        positions = {item.key: number for number, item in enumerate(right.targets)}
        queries = (_by_picture(right.queries[number]) for number in right.asked)
        return self._rank(queries, "text", lambda hit: positions.get(_normal(hit.text), OTHER))

    def held_texts(self, captions: Sequence[GalleryItem]) -> set[str]:
        """Return the captions that the index holds as texts. Such a text is the first hit for itself."""
        requests = (
            {"text": item.key, "modality": "text", "k": _NUM_NEAREST, "include": ["text"]}
            for item in captions
        )
        found = {_normal(hit.text) for answer in self._answers(requests) for hit in answer.get("text", [])}
        return found & {item.key for item in captions}

    def _rank(
        self, queries: Iterable[Mapping[str, Any]], modality: str, position: Callable[[AnsweredHit], int]
    ) -> Ranking:
        requests = (
            {**self.extra, **q, "modality": modality, "k": DEPTH, "include": ["text"]} for q in queries
        )
        found = [_each_once(map(position, hits.get(modality, []))) for hits in self._answers(requests)]
        self.num_other += sum(row.count(OTHER) for row in found)
        return np.array([row + [OTHER] * (DEPTH - len(row)) for row in found]).reshape(-1, DEPTH)

    def _answers(self, requests: Iterable[dict[str, Any]]) -> list[Mapping[str, Sequence[AnsweredHit]]]:
        with ThreadPoolExecutor(_NUM_CALLS) as threads:
            return list(threads.map(lambda request: hits_by_modality(self._search(request)), requests))

    def _search(self, request: dict[str, Any]) -> dict[str, Any]:
        for _ in range(_NUM_TRIES - 1):
            try:
                return self.client.search(request)
            except QueryServiceAway:  # busy, or a rate limit
                self.pause(_PAUSE_SECONDS)
        return self.client.search(request)


def _each_once(positions: Iterable[int]) -> list[int]:
    """Leave out a target that an answer has named before. Other contents stay."""
    found = list(positions)
    first = {n: at for at, n in reversed(list(enumerate(found)))}
    return [n for at, n in enumerate(found) if n == OTHER or first[n] == at]


def _by_picture(item: GalleryItem) -> Mapping[str, Any]:
    data = item.read() if item.read is not None else b""
    return {"image": base64.b64encode(data).decode()}


def _normal(text: str | None) -> str:
    return " ".join((text or "").split())
