"""Compares what two indexes answer: how many of the first k hits they share, and how good both are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clip_index.content import MODALITIES, Embeddings, Modality, unit_mean
from clip_index.encoder.protocol import Encoder
from clip_index.errors import BadContent, IndexMissing
from clip_index.reading.index_reader import IndexReader
from clip_index.row_filter import RowFilter
from clip_index.searching.searcher import Searcher
from clip_index.views.snapshot import Hit
from cliptide.evaluation.answers import OTHER
from cliptide.pairs.gallery import RightAnswers
from cliptide.pairs.quality import DEPTH, Ranking
from cliptide.reindexing.compared_query import KINDS, ComparedQuery, ComparedTerm, QueryKind
from query_api.errors import ApiError
from query_api.search.ranking.query_embedding import combined_embedding
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
        """Return what to search for, (directions, dimension); None if a content is not in this index.

        Raises `BadContent` for a text that cannot be encoded, and for terms that cancel each other out.
        """
        parts = [self._directions_of_term(term) for term in query.terms]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        if len(known) == 1 and query.terms[0].weight > 0:
            return known[0]
        means = [unit_mean(part) for part in known]
        try:
            return combined_embedding(means, [term.weight for term in query.terms])[np.newaxis]
        except ApiError as error:
            raise BadContent("zero_vector", str(error)) from error

    def _directions_of_term(self, term: ComparedTerm) -> Embeddings | None:
        if term.text is not None:
            return _one(self.encoder.encode([self.encoder.prepare_text(term.text)])[0])
        location = self.searcher.find(term.content_id or "")
        if location is None:
            return None
        rows, [stored] = self.searcher.embeddings(location), self.searcher.headlines([location])
        return rows if stored.modality == "image" else _one(rows)

    def answer(self, query: ComparedQuery, directions: Embeddings, k: int, modality: Modality) -> list[Hit]:
        """Return the k best hits of a query, without the contents that it is made of."""
        return self.find(directions, k, modality, query.excluded_ids, query.row_filter)

    def find(
        self,
        directions: Embeddings,
        k: int,
        modality: Modality,
        without: frozenset[str] = frozenset(),
        row_filter: RowFilter | None = None,
    ) -> list[Hit]:
        """Return the k best hits beside some contents."""
        num_wanted = k + len(without)
        found = search_crops(
            self.searcher, directions, k=num_wanted, modality=modality, row_filter=row_filter
        )
        return [hit for hit in found if hit.content_id not in without][:k]


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
        for modality in query.modalities:
            hits = [
                index.answer(query, directions, self.k, modality)
                for index, directions in ((first, ours), (second, theirs))
            ]
            if hits[0] or hits[1]:
                self.answers.append(ComparedAnswer(query, modality, *hits))

    @property
    def overlap(self) -> float | None:
        """Return the mean over the given queries; without any over the live ones, then over the sampled."""
        for kind in KINDS:
            if found := self._answers_of(kind):
                return _mean_overlap(found)
        return None

    def as_json(self) -> dict[str, Any]:
        return {
            "k": self.k,
            "overlap": None if self.overlap is None else round(self.overlap, 4),
            "overlaps": {
                kind: {
                    modality: {"mean": round(_mean_overlap(found), 4), "num_queries": len(found)}
                    for modality in MODALITIES
                    if (found := self._answers_of(kind, modality))
                }
                for kind in KINDS
                if self._answers_of(kind)
            },
            "skipped": self.skipped,
        }

    def least_alike(self, num_queries: int) -> list[ComparedAnswer]:
        return sorted(self.answers, key=lambda answer: answer.overlap)[:num_queries]

    def _answers_of(self, kind: QueryKind, modality: Modality | None = None) -> list[ComparedAnswer]:
        return [
            answer
            for answer in self.answers
            if answer.query.kind == kind and modality in (None, answer.modality)
        ]


def _mean_overlap(answers: Sequence[ComparedAnswer]) -> float:
    """Return the mean, in which each query counts as often as it weighs."""
    weights = [answer.query.weight for answer in answers]
    return sum(answer.overlap * answer.query.weight for answer in answers) / sum(weights)


def sample_queries(index: ComparedIndex, num_queries: int) -> Iterator[ComparedQuery]:
    """Draw contents of the index, half of them pictures if there are as many."""
    for modality in MODALITIES:
        for location in index.searcher.sample(modality, num_queries // 2):
            content = index.searcher.read(location)
            title = content.facts.title or content.facts.text or content.content_id
            yield ComparedQuery.of_content(title[:120], content.content_id)


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
            found = [position(hit) for hit in self.index.find(directions, DEPTH, modality)]
            first_at = {number: at for at, number in reversed(list(enumerate(found))) if number != OTHER}
            ranked = [n for at, n in enumerate(found) if n == OTHER or first_at[n] == at]
            rows.append(ranked + [OTHER] * (DEPTH - len(ranked)))
        return np.array(rows, dtype=np.int64).reshape(-1, DEPTH)


def _one(rows: Embeddings) -> Embeddings:
    """Return the mean direction of a text's windows, as the query service searches for it."""
    return unit_mean(rows)[np.newaxis]
