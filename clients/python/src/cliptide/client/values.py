"""What a caller gives and gets. Fields of an answer that this version does not know are passed over."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict

from cliptide.client.errors import Refused

Json: TypeAlias = dict[str, Any]
Modality: TypeAlias = Literal["text", "image"]
Include: TypeAlias = Literal["text", "metadata", "vector", "thumbnail", "thumbnail_url"]
Picture: TypeAlias = "bytes | os.PathLike[str]"
MetadataValue: TypeAlias = "str | float | bool | Sequence[str]"


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: exactly one of these. `weight` counts in `terms` and in recommendations."""

    text: str | None = None
    image: Picture | None = None
    content_id: str | None = None
    vector: Sequence[float] | None = None
    terms: Sequence[Query] | None = None
    weight: float | None = None

    def as_json(self) -> Json:
        fields: Json = {
            "text": self.text,
            "image": None if self.image is None else encoded_picture(self.image),
            "content_id": self.content_id,
            "vector": None if self.vector is None else [float(number) for number in self.vector],
            "terms": None if self.terms is None else [term.as_json() for term in self.terms],
            "weight": self.weight,
        }
        return given(fields)


class RankingOptions(TypedDict, total=False):
    """Which contents are answered. What is left out has the service's default."""

    k: int
    modality: Modality
    filter: Mapping[str, Any]
    min_score: float
    collapse_identical: bool
    include: Sequence[Include]
    min_offsets: Mapping[str, int]
    timeout_ms: int


class SearchOptions(RankingOptions, total=False):
    min_percentile: float
    by_modality: bool


class RecommendOptions(RankingOptions, total=False):
    novelty: float
    diversity: float


class UploadFields(TypedDict, total=False):
    """What an upload says of its content, beside the content itself."""

    title: str
    metadata: Mapping[str, MetadataValue]
    source: str
    owner_id: str
    link: str
    version: int
    event_id: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Where a written event is in the log. `min_offsets` makes a search wait until it covers the event."""

    content_id: str
    shard: str
    offset: int
    next_offset: int
    is_delete: bool = False

    @property
    def min_offsets(self) -> dict[str, int]:
        return {self.shard: self.next_offset}


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload of a batch: a text or a picture, and what is said of it."""

    content_id: str
    text: str | None = None
    image: Picture | None = None
    fields: UploadFields = field(default_factory=lambda: UploadFields())

    def as_json(self) -> Json:
        image = None if self.image is None else encoded_picture(self.image)
        body: Json = {"content_id": self.content_id, "content": given({"text": self.text, "image": image})}
        body.update(self.fields)
        if "occurred_at" in self.fields:
            body["occurred_at"] = _rfc_time(self.fields["occurred_at"])
        return body


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one upload of a batch: where it is in the log, or why it was refused."""

    content_id: str
    acknowledgement: Acknowledgement | None
    error: Refused | None


@dataclass(frozen=True, slots=True)
class DeletedByFilter:
    """What passes a filter, and how many of these contents were deleted. `content_ids` are the first 100."""

    num_found: int
    num_deleted: int
    content_ids: Sequence[str]
    min_offsets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Because:
    """Why a content is recommended."""

    kind: str
    content_id: str | None = None
    example: int | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One content that was found. `text` to `thumbnail_url` are there if `include` names them."""

    content_id: str
    modality: Modality
    score: float
    percentile: float | None
    source: str
    owner_id: str | None
    occurred_at: datetime
    link: str | None
    title: str | None
    version: int | None
    text: str | None
    metadata: Mapping[str, MetadataValue] | None
    vector: Sequence[float] | None
    thumbnail: bytes | None
    thumbnail_url: str | None
    because: Because | None

    @classmethod
    def from_json(cls, hit: Json) -> Hit:
        thumbnail, because = hit.get("thumbnail"), hit.get("because")
        return cls(
            content_id=hit["content_id"],
            modality=hit["modality"],
            score=hit["score"],
            percentile=hit.get("percentile"),
            source=hit["source"],
            owner_id=hit["owner_id"],
            occurred_at=datetime.fromisoformat(hit["occurred_at"].replace("Z", "+00:00")),
            link=hit["link"],
            title=hit.get("title"),
            version=hit["version"],
            text=hit.get("text"),
            metadata=hit.get("metadata"),
            vector=hit.get("vector"),
            thumbnail=None if thumbnail is None else base64.b64decode(thumbnail),
            thumbnail_url=hit.get("thumbnail_url"),
            because=None if because is None else _because(because),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits by modality, the best first. `snapshot` says which offsets of each shard the answer covers."""

    results: Mapping[str, Sequence[Hit]]
    snapshot: Mapping[str, Any]
    timings: Mapping[str, float]
    next_cursor: str | None = None
    missing_ids: Sequence[str] = field(default_factory=tuple)

    @property
    def images(self) -> Sequence[Hit]:
        return self.results.get("image", ())

    @property
    def texts(self) -> Sequence[Hit]:
        return self.results.get("text", ())

    @property
    def hits(self) -> Sequence[Hit]:
        """All hits: the pictures, then the texts, or the one ranking of a search without modalities."""
        return [*self.results.get("all", ()), *self.images, *self.texts]

    @classmethod
    def from_json(cls, answer: Json) -> Answer:
        return cls(
            results={
                name: [Hit.from_json(hit) for hit in found["hits"]]
                for name, found in answer["results"].items()
            },
            snapshot=answer["snapshot"],
            timings=answer["timings"],
            next_cursor=answer.get("next_cursor"),
            missing_ids=answer.get("missing_ids", ()),
        )


def _because(because: Json) -> Because:
    return Because(because["kind"], because.get("content_id"), because.get("example"))


def as_query(query: Query | str) -> Query:
    """A plain text is a query for that text."""
    return Query(text=query) if isinstance(query, str) else query


def encoded_picture(picture: Picture) -> str:
    data = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    return base64.b64encode(data).decode()


def _rfc_time(time: datetime) -> str:
    if time.tzinfo is None:
        raise ValueError("occurred_at needs a time zone")
    return time.isoformat()


def given(fields: Mapping[str, Any]) -> Json:
    """Return the fields that have a value."""
    return {name: value for name, value in fields.items() if value is not None}
