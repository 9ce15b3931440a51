"""What is asked of two indexes, in a form that each of them can embed with its own model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from clip_index.content import MODALITIES, Modality
from clip_index.row_filter import RowFilter

QueryKind: TypeAlias = Literal["given", "live", "sampled"]
KINDS: tuple[QueryKind, ...] = ("given", "live", "sampled")
"""Of these, the first that there are decide a switch: what people ask tells more than contents do."""


@dataclass(frozen=True, slots=True)
class ComparedTerm:
    """A text, or a content of the index that is searched by its own embeddings."""

    text: str | None = None
    content_id: str | None = None
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ComparedQuery:
    """A given text, a live query, or a content that was sampled from the index.

    It counts `weight` times in the means, because a live query stands for others that were not kept.
    """

    title: str
    terms: tuple[ComparedTerm, ...]
    kind: QueryKind = "given"
    modality: Modality | None = None
    row_filter: RowFilter | None = None
    weight: int = 1

    @classmethod
    def of_text(cls, text: str) -> ComparedQuery:
        return cls(text, (ComparedTerm(text=text),))

    @classmethod
    def of_content(cls, title: str, content_id: str) -> ComparedQuery:
        return cls(title, (ComparedTerm(content_id=content_id),), kind="sampled")

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return MODALITIES if self.modality is None else (self.modality,)

    @property
    def excluded_ids(self) -> frozenset[str]:
        """The contents that the query is made of, which are no answers."""
        return frozenset(one.content_id for one in self.terms if one.content_id is not None)
