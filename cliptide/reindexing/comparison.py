"""Compares what two indexes answer: how many of the first k hits they share, and how good both are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import numpy as np

from clip_index.content import MODALITIES, Embeddings, Modality, unit_mean
from clip_index.encoder.protocol import Encoder
from clip_index.errors import BadContent, IndexMissing
from clip_index.reading.index_reader import IndexReader
from clip_index.reading.searcher import Searcher
from clip_index.reading.snapshot import Hit
from cliptide.evaluation.answers import OTHER
from cliptide.pairs.gallery import RightAnswers
from cliptide.pairs.quality import DEPTH, Ranking
from query_api.serving.best_of_crops import search_crops


@dataclass(frozen=True, slots=True)
class ComparedIndex:
    """One of the two: a snapshot of it, and the encoder of its model."""

    index_id: str
    searcher: Searcher
    encoder: Encoder

    @classmethod
    def open(cls, reader: IndexReader, encoder: Encoder) -> ComparedIndex:
        reader.reload()
        if reader.index is None or reader.searcher is None:
            raise IndexMissing("the index cannot be opened")
        return cls(reader.index.index_id, reader.searcher, encoder)

    def directions_of(self, query: ComparedQuery) -> Embeddings | None:
        """Return what to search for, (directions, dimension); None if the content is not in this index."""
        if query.text is not None:
            return _one(self.encoder.encode([self.encoder.prepare_text(query.text)])[0])
        location = self.searcher.find(query.content_id or "")
        if location is None:
            return None
        rows = self.searcher.embeddings(location)
        return rows if query.is_picture else _one(rows)

    def find(self, directions: Embeddings, k: int, modality: Modality, without: str | None) -> list[Hit]:
        """Return the k best hits beside one content."""
        found = search_crops(self.searcher, directions, k=k + (without is not None), modality=modality)
        return [hit for hit in found if hit.content_id != without][:k]


@dataclass(frozen=True, slots=True)
class ComparedQuery:
    """A given text, or a content that was sampled from the index and is searched by its own embeddings."""

    title: str
    text: str | None = None
    content_id: str | None = None
    is_picture: bool = False

    @property
    def kind(self) -> str:
        return "given" if self.content_id is None else "sampled"


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """The first k hits of both indexes for one query, of one modality."""

    query: ComparedQuery
    modality: Modality
    first: Sequence[Hit]
    second: Sequence[Hit]

    @property
    def overlap(self) -> float:
        """Return the share of the hits that both have, of the longer answer."""
        ours, theirs = ({hit.content_id for hit in hits} for hits in (self.first, self.second))
        return len(ours & theirs) / max(len(ours), len(theirs))


@dataclass(slots=True)
class Comparison:
    """The answers of two indexes; `skipped` counts queries that one of them cannot answer."""

    k: int
    answers: list[ComparedAnswer] = field(default_factory=list)
    skipped: int = 0

    def add(self, query: ComparedQuery, first: ComparedIndex, second: ComparedIndex) -> None:
        try:
            ours, theirs = first.directions_of(query), second.directions_of(query)
        except BadContent:
            self.skipped += 1
            return
        if ours is None or theirs is None:
            self.skipped += 1
            return
        for modality in MODALITIES:
            hits = [
                index.find(directions, self.k, modality, query.content_id)
                for index, directions in ((first, ours), (second, theirs))
            ]
            if hits[0] or hits[1]:
                self.answers.append(ComparedAnswer(query, modality, *hits))

    @property
    def overlap(self) -> float | None:
        """Return the mean over the given queries, or over the sampled ones if none was given."""
        for kind in ("given", "sampled"):
            if found := self._overlaps(kind):
                return fmean(found)
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "k": self.k,
            "overlap": None if self.overlap is None else round(self.overlap, 4),
            "overlaps": {
                kind: {
                    modality: {"mean": round(fmean(found), 4), "num_queries": len(found)}
                    for modality in MODALITIES
                    if (found := self._overlaps(kind, modality))
                }
                for kind in ("given", "sampled")
                if self._overlaps(kind)
            },
            "skipped": self.skipped,
        }

    def least_alike(self, num_queries: int) -> list[ComparedAnswer]:
        return sorted(self.answers, key=lambda answer: answer.overlap)[:num_queries]

    def _overlaps(self, kind: str, modality: Modality | None = None) -> list[float]:
        return [
            answer.overlap
            for answer in self.answers
            if answer.query.kind == kind and modality in (None, answer.modality)
        ]


def sample_queries(index: ComparedIndex, num_queries: int) -> Iterator[ComparedQuery]:
    """Draw contents of the index, half of them pictures if there are as many."""
    for modality in MODALITIES:
        for location in index.searcher.sample(modality, num_queries // 2):
            content = index.searcher.read(location)
            is_picture = content.modality == "image"
            title = content.facts.title or content.facts.text or content.content_id
            yield ComparedQuery(title[:120], content_id=content.content_id, is_picture=is_picture)


@dataclass(frozen=True, slots=True)
class IndexAnswers:
    """Implements evaluation's `Answers`: an index ranks what it holds, with whatever else is in it."""

    index: ComparedIndex

    @property
    def name(self) -> str:
        return self.index.index_id

    def rank_pictures(self, right: RightAnswers) -> Ranking | None:
        positions = {item.key: number for number, item in enumerate(right.targets)}
        queries = (self._of_text(right.queries[number].key) for number in right.asked)
        return self._rank(queries, "image", lambda hit: positions.get(hit.content_id, OTHER))

    def rank_captions(self, right: RightAnswers) -> Ranking | None:
        """Return None if no hit is one of the captions: then the index does not hold them."""
        positions = {item.key: number for number, item in enumerate(right.targets)}

        def position(hit: Hit) -> int:
            text = self.index.searcher.read(hit.location).facts.text or ""
            return positions.get(" ".join(text.split()), OTHER)

        pictures = (right.queries[number].read for number in right.asked)
        queries = (self._of_picture(read() if read is not None else b"") for read in pictures)
        ranking = self._rank(queries, "text", position)
        return ranking if (ranking != OTHER).any() else None

    def _of_text(self, text: str) -> Embeddings:
        encoder = self.index.encoder
        return _one(encoder.encode([encoder.prepare_text(text)])[0])

    def _of_picture(self, data: bytes) -> Embeddings:
        encoder = self.index.encoder
        return encoder.encode([encoder.prepare_image(data)])[0]

    def _rank(
        self, queries: Iterator[Embeddings], modality: Modality, position: Callable[[Hit], int]
    ) -> Ranking:
        rows = []
        for directions in queries:
            found = [position(hit) for hit in self.index.find(directions, DEPTH, modality, None)]
            first_at = {number: at for at, number in reversed(list(enumerate(found))) if number != OTHER}
            ranked = [n for at, n in enumerate(found) if n == OTHER or first_at[n] == at]
            rows.append(ranked + [OTHER] * (DEPTH - len(ranked)))
        return np.array(rows, dtype=np.int64).reshape(-1, DEPTH)


def _one(rows: Embeddings) -> Embeddings:
    """Return the mean direction of a text's windows, as the query service searches for it."""
    return unit_mean(rows)[np.newaxis]
